"""Every file in wrong/ is refused with exactly the problems that its first lines expect: `# expect LINE:COLUMN message`.

The first word of a file's name says in whose place it is put, in a directory that is fine otherwise.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from alertrouter.rules.load import read_rules

WRONG = Path(__file__).with_name("wrong")
PLACES = {
    "config": "alertrouter.yaml",
    "global": "global.yaml",
    "router": "router.yaml",
    "service": "services/shop.yaml",
    "unrouted": "unrouted.yaml",
}
FINE = {
    "alertrouter.yaml": "priorities: {P1: {severity: critical}, P2: {severity: error}}\n",
    "router.yaml": "catch_all: {route_to: unrouted}\n",
    "services/shop.yaml": "team: team-shop\n",
}


def fill(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8")


def test_the_directory_around_a_wrong_file_is_fine(tmp_path: Path) -> None:
    fill(tmp_path, FINE)
    assert read_rules(tmp_path).problems == ()


@pytest.mark.parametrize("wrong", sorted(WRONG.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_wrong_file_is_refused_with_place_and_remedy(wrong: Path, tmp_path: Path) -> None:
    text = wrong.read_text(encoding="utf-8")
    place = PLACES[wrong.stem.partition("-")[0]]
    fill(tmp_path, {**FINE, place: text})

    reading = read_rules(tmp_path)

    expected = [line.removeprefix("# expect ") for line in text.splitlines() if line.startswith("# expect ")]
    found = [f"{each.line}:{each.column} {each.message}".replace(f"{tmp_path}/", "") for each in reading.problems]
    assert expected, "the file says nothing of what to expect"
    assert found == expected
    assert {each.file for each in reading.problems} == {str(tmp_path / place)}
    assert reading.ruleset is None
