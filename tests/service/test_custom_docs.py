"""docs/senders/custom.md: every example is checked, fired and resolved by the commands that the page names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PAGE = Path(__file__).parents[2] / "docs" / "senders" / "custom.md"
TEXT = PAGE.read_text(encoding="utf-8")
_SECTION = re.compile(r"^## (Zabbix|UptimeRobot|Healthchecks)\n(.*?)(?=^## )", re.DOTALL | re.MULTILINE)
_CONFIG = re.compile(r"^```yaml\n(# alertrouter\.yaml\n.*?)^```$", re.DOTALL | re.MULTILINE)
_BODY = re.compile(r"^```json source=\S+ status=(\w+)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TEST = re.compile(r"^```yaml\n# (tests/\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

#: What PagerDuty hears when a body of that status is posted.
_ACTIONS = {"firing": "trigger", "acknowledged": "acknowledge", "resolved": "resolve"}


def alertrouter(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "alertrouter"), *words], cwd=cwd, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules(folder: Path, config: str) -> Path:
    directory = folder / "rules"
    (directory / "tests").mkdir(parents=True)
    (directory / "alertrouter.yaml").write_text(config)
    (directory / "router.yaml").write_text("catch_all: {route_to: unrouted}\n")
    return directory


@pytest.mark.parametrize(("tool", "section"), [pytest.param(*found, id=found[0]) for found in _SECTION.findall(TEXT)])
def test_an_example_is_checked_fired_and_resolved(tool: str, section: str, tmp_path: Path) -> None:
    [config] = _CONFIG.findall(section)
    source = f"custom/{tool.lower()}"
    directory = rules(tmp_path, config)
    bodies = _BODY.findall(section)
    assert [bodies[0][0], bodies[-1][0]] == ["firing", "resolved"]
    steps = []
    for number, (status, body) in enumerate(bodies):
        (directory / "tests" / f"{number}.json").write_text(body)
        expect = {"outcome": "delivered", "event": {"event_action": _ACTIONS[status]}}
        steps.append({"advance": "10m", "source": source, "body": f"{number}.json", "expect": expect})
    steps[-1]["expect"] = {"event": {"event_action": "resolve"}, "open": []}
    case = {"tests": [{"name": f"{tool} fires and resolves", "steps": steps}]}
    (directory / "tests" / "sender_test.yaml").write_text(yaml.safe_dump(case))

    alertrouter("check", "rules", cwd=tmp_path)
    assert "1 passed" in alertrouter("test", "rules", cwd=tmp_path)
    explained = alertrouter("explain", "--source", source, "--rules", "rules", "rules/tests/0.json", cwd=tmp_path)
    assert "Would go to pagerduty:default" in explained


def test_the_test_case_on_the_page_passes(tmp_path: Path) -> None:
    [zabbix, *_] = [section for tool, section in _SECTION.findall(TEXT) if tool == "Zabbix"]
    [config] = _CONFIG.findall(zabbix)
    directory = rules(tmp_path, config)
    [(name, text)] = _TEST.findall(TEXT)
    (directory / name).write_text(text)
    assert "1 passed" in alertrouter("test", "rules", cwd=tmp_path)
