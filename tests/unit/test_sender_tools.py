"""What a new sender gets for its one line in PARSERS: `explain` and `test` take its bodies, and know whose they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from alertrouter.cli import main
from alertrouter.delivery.silence import AutoResolve
from alertrouter.simulation.cases import Case, read_cases
from alertrouter.sources import PARSERS

ROOT = Path(__file__).parents[2]
PAYLOADS = [
    pytest.param(path, id=f"{path.parent.name}/{path.name}")
    for path in sorted((ROOT / "tests" / "payloads").glob("*/*.json"))
]


def test_every_sender_has_a_payload() -> None:
    assert {payload.values[0].parent.name for payload in PAYLOADS} == set(PARSERS)  # type: ignore[union-attr]


@pytest.mark.parametrize("path", PAYLOADS)
def test_explain_tells_what_becomes_of_it(path: Path) -> None:
    words = ["explain", "--source", path.parent.name, "--rules", str(ROOT / "rules"), "-o", "json", str(path)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    explained = json.loads(result.stdout)
    assert explained
    for each in explained:
        assert each["dedup_key"].startswith(f"{path.parent.name}:")
        assert each["trace"]


@pytest.mark.parametrize("path", PAYLOADS)
def test_a_test_case_knows_who_posts_such_a_body(path: Path, tmp_path: Path) -> None:
    (tmp_path / "a_test.yaml").write_text(
        f"tests: [{{name: a, steps: [{{body: {path}}}], expect_none: [dead_lettered]}}]"
    )
    [case] = read_cases(tmp_path / "a_test.yaml")
    assert isinstance(case, Case)
    assert case.steps[0].sent is not None
    assert case.steps[0].sent.source == path.parent.name


def test_only_what_repeats_is_over_by_silence() -> None:
    repeating = {sender for sender in PARSERS if AutoResolve().of(sender)}
    assert repeating == {"alertmanager", "grafana"}
