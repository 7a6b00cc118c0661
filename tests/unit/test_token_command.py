"""`alertrouter token new`: what it prints is a token, and what it says to write is taken."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from click.testing import CliRunner

from alertrouter.cli import main
from alertrouter.rules.load import read_rules
from alertrouter.rules.model import KeyReference, NamedReference


def new(*options: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    ran = CliRunner().invoke(main, ["token", "new", *options])
    return ran.exit_code, ran.stdout, ran.stderr


def test_standard_output_is_the_token_alone_and_never_the_same() -> None:
    tokens = {new(*options)[1] for options in ((), (), ("--for", "datadog"), ("--api", "read"), ("--api", "operate"))}
    assert len(tokens) == 5
    for line in tokens:
        assert line.startswith("alertrouter_") and line.endswith("\n")
        assert len(line.removeprefix("alertrouter_").strip()) == 43, "256 bits, six in each character"


@pytest.mark.parametrize("source", ["alertmanager/team-a", "alertmanager", "datadog/eu"])
def test_what_it_says_to_write_into_alertrouter_yaml_loads(source: str, tmp_path: Path) -> None:
    code, token, said = new("--for", source, "--name", "2026-11")
    assert code == 0 and token.strip() not in said
    start = said.index("    sources:")
    written = dedent(said[start : said.index("\n\n", start)])
    (tmp_path / "alertrouter.yaml").write_text(written)
    (tmp_path / "router.yaml").write_text("catch_all: {route_to: unrouted}\n")
    reading = read_rules(tmp_path)
    assert reading.problems == () and reading.ruleset is not None
    file = f"/run/secrets/{source.replace('/', '-')}-2026-11"
    assert reading.ruleset.credentials[source].tokens == (NamedReference("2026-11", KeyReference(file=file)),)
    assert f"/webhooks/{source}\n" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--for", "Team A"], "sender/name"),
        (["--for", "alertmanager", "--api", "read"], "not both"),
        (["--name", "x"], "--name needs --for"),
        (["--for", "alertmanager", "--name", "a b"], "--name"),
        (["--api", "all"], "--api"),
    ],
)
def test_wrong_usage(options: list[str], said: str) -> None:
    code, output, errors = new(*options)
    assert (code, output) == (2, "") and said in errors


def test_the_settings_of_the_api_are_named() -> None:
    assert "ALERTROUTER_API_READ_TOKENS" in new("--api", "read")[2]
    assert "ALERTROUTER_API_OPERATE_TOKENS" in new("--api", "operate")[2]
    assert "ALERTROUTER_WEBHOOK_TOKENS" in new()[2]


def test_a_token_in_the_rules_is_found(tmp_path: Path) -> None:
    (tmp_path / "router.yaml").write_text("catch_all: {route_to: unrouted}\n")
    rule = f"{{rule: x, then: {{annotate: '{new()[1].strip()}'}}}}"
    (tmp_path / "global.yaml").write_text(f"sets: {{start: [{rule}]}}\ncatch_all: {{}}\n")
    ran = CliRunner().invoke(main, ["check", str(tmp_path)])
    assert "this looks like a secret" in ran.output
