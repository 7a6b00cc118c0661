"""docs/senders/pagerduty.md: what is to be pasted is taken by what it is pasted into."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import yaml

from alertrouter.rules.load import load_rules
from tests.conftest import program

PAGE = Path(__file__).parents[2] / "docs" / "senders" / "pagerduty.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def block_with(language: str, key: str) -> str:
    [block] = [block for block in blocks(language) if key in block]
    return block


def test_amtool_takes_the_alertmanager_snippet(tmp_path: Path) -> None:
    """`routing_key_file` came with 0.25, the oldest Alertmanager there is here."""
    snippet = block_with("yaml", "receivers")
    (tmp_path / "am.yml").write_text(snippet)
    done = subprocess.run(
        [program("amtool"), "check-config", tmp_path / "am.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [receiver] = yaml.safe_load(snippet)["receivers"]
    assert receiver["pagerduty_configs"][0]["url"].endswith("/v2/enqueue")


def test_alertrouter_takes_the_integrations(tmp_path: Path) -> None:
    (tmp_path / "alertrouter.yaml").write_text(block_with("yaml", "integrations"))
    (tmp_path / "router.yaml").write_text("catch_all: {route_to: unrouted}\n")
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "payment-service.yaml").write_text("team: team-payments\n")
    [integration] = load_rules(tmp_path).integrations.values()
    assert (integration.name, integration.service) == ("zabbix", "payment-service")


def test_the_python_snippet_is_python() -> None:
    called = {
        each.attr for each in ast.walk(ast.parse(block_with("python", "base_url"))) if isinstance(each, ast.Attribute)
    }
    assert called == {"EventsApiV2Client", "trigger"}
