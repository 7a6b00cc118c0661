"""docs/senders: a page and a README row for each sender, and every snippet on a page is taken by what it is meant for.

What a block is meant for is told by what is in it, or by the words after its language:

    ```json status=firing dedup_key=...             a body; the sender's parser makes of it what these words say
    ```json source=custom/zabbix status=firing ...  the same, where the page has more than one source
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from alertrouter.alert import Alert
from alertrouter.rules.load import load_rules
from alertrouter.rules.schema import ConfigShape
from alertrouter.sources import PARSERS, SENDERS, Parser, find_parser
from tests.conftest import program

REPOSITORY = Path(__file__).parents[2]
SENDER_PAGES = sorted((REPOSITORY / "docs" / "senders").glob("*.md"))
README = REPOSITORY / "README.md"
PAGES = sorted([README, *(REPOSITORY / "docs").rglob("*.md")])

_BLOCK = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
#: The programs that say whether they take a configuration, by what it is.
_CHECKED_BY = {
    "alertmanager": ("amtool", "check-config"),
    "prometheus": ("promtool", "check", "config", "--syntax-only"),
    "prometheus rules": ("promtool", "check", "rules"),
}
_ROUTER = "catch_all: {route_to: unrouted}\n"


@dataclass(frozen=True)
class Block:
    """A fenced block. `words` are those after its language, as name=value."""

    page: str
    line: int
    language: str
    words: Mapping[str, str]
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        language, words, inside = found.groups()
        if language in languages:
            line = text.count("\n", 0, found.start()) + 1
            pairs = dict(word.partition("=")[::2] for word in words.split() if "=" in word)
            yield Block(page.name, line, language, pairs, inside)


YAML = [block for page in PAGES for block in blocks(page, "yaml", "yml")]
JSON = [block for page in SENDER_PAGES for block in blocks(page, "json")]
BODIES = [block for block in JSON if block.words]


def value_in(block: Block) -> Any:
    """The one YAML document of a block. Anything but YAML fails the test."""
    return yaml.safe_load(block.text)


def meant_for(value: Any) -> str:
    """Whose configuration a YAML value is, by its keys; "" for what is none we know."""
    keys = frozenset(value) if isinstance(value, dict) else frozenset()
    if keys and keys & {"receivers", "route"} and "apiVersion" not in keys:
        return "alertmanager"
    if keys == {"groups"}:
        return "prometheus rules"
    if keys & {"scrape_configs", "alerting", "rule_files"}:
        return "prometheus"
    if keys and keys <= set(ConfigShape.model_fields):
        return "alertrouter"
    return ""


def snippets(*kinds: str) -> list[Any]:
    found = [block for block in YAML if meant_for(value_in(block)) in kinds]
    return [pytest.param(block, id=str(block)) for block in found]


# --- pages and rows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", SENDERS)
def test_each_sender_has_a_page_that_says_where_it_posts_and_a_row_that_links_to_it(sender: str) -> None:
    page = REPOSITORY / "docs" / "senders" / f"{sender}.md"
    assert f"/webhooks/{sender}" in page.read_text(encoding="utf-8")
    path = f"`POST /webhooks/{sender}" if sender in PARSERS else f"`POST /webhooks/{sender}/{{name}}`"
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("|") and path in line]
    assert len(rows) == 1
    assert f"(docs/senders/{sender}.md)" in rows[0]


def test_the_table_says_the_same_of_each_sender() -> None:
    table = README.read_text(encoding="utf-8").partition("## Senders\n")[2].partition("\n\n`POST")[0].strip()
    header, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert header == [
        *("Sender", "Path", "Identity", "Episode", "Status", "Severity", "Authentication", "Its retries mean")
    ]
    for row in rows:
        assert len(row) == len(header)
        assert all(cell.strip() for cell in row)


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in SENDER_PAGES])
def test_no_page_is_lost(page: Path) -> None:
    assert f"(docs/senders/{page.name})" in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(REPOSITORY))) for page in PAGES])
def test_links_to_other_files_lead_somewhere(page: Path) -> None:
    prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    targets = {link.partition("#")[0] for link in _LINK.findall(prose) if "://" not in link}
    assert [target for target in sorted(targets) if target and not (page.parent / target).exists()] == []


# --- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [pytest.param(block, id=str(block)) for block in YAML])
def test_what_is_said_to_be_yaml_is(block: Block) -> None:
    assert value_in(block) is not None


@pytest.mark.parametrize("block", snippets(*_CHECKED_BY))
def test_the_program_it_is_meant_for_takes_it(block: Block, tmp_path: Path) -> None:
    whole = value_in(block)
    kind = meant_for(whole)
    if kind == "alertmanager":  # a page shows the part that matters
        routes = whole.get("route", {}).get("routes", [])
        whole.setdefault("receivers", [{"name": each["receiver"]} for each in routes] or [{"name": "alertrouter"}])
        whole["route"] = {"receiver": whole["receivers"][0]["name"], **whole.get("route", {})}
    file = tmp_path / "snippet.yml"
    file.write_text(yaml.safe_dump(whole))
    name, *words = _CHECKED_BY[kind]
    done = subprocess.run([program(name), *words, str(file)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


def in_a_directory(folder: Path, block: Block) -> Path:
    (folder / "alertrouter.yaml").write_text(block.text)
    (folder / "router.yaml").write_text(_ROUTER)
    (folder / "services").mkdir(exist_ok=True)
    written = value_in(block)
    for each in (*written.get("heartbeats", ()), *written.get("integrations", {}).values()):
        if service := each.get("service"):
            (folder / "services" / f"{service}.yaml").write_text("team: team-sre\n")
    return folder


@pytest.mark.parametrize("block", snippets("alertrouter"))
def test_alertrouter_takes_it(block: Block, tmp_path: Path) -> None:
    load_rules(in_a_directory(tmp_path, block))


def test_each_kind_of_snippet_is_found() -> None:
    assert snippets("alertmanager")
    assert snippets("alertrouter")


# --- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [pytest.param(block, id=str(block)) for block in JSON])
def test_what_is_said_to_be_json_is(block: Block) -> None:
    json.loads(block.text)


def parser_of(source: str, page: str, folder: Path) -> Parser:
    """Where the page describes the source itself, by that."""
    for block in YAML:
        value = value_in(block)
        if block.page == page and meant_for(value) == "alertrouter" and source in value.get("sources", {}):
            return find_parser(source, load_rules(in_a_directory(folder, block)).custom)
    return find_parser(source)


def said_of(alert: Alert) -> dict[str, str]:
    return {
        "status": alert.status.value,
        "severity": alert.event.severity.value,
        "summary": alert.event.summary,
        "dedup_key": alert.dedup_key,
        "source": alert.source,
        "fingerprint": alert.fingerprint,
    }


@pytest.mark.parametrize("block", [pytest.param(block, id=str(block)) for block in BODIES])
def test_the_body_is_what_the_page_says(block: Block, tmp_path: Path) -> None:
    source = block.words.get("source", block.page.removesuffix(".md"))
    parsed = parser_of(source, block.page, tmp_path)(block.text.encode(), {"content-type": "application/json"}, source)
    assert not parsed.skipped
    [alert] = parsed.alerts
    assert {name: said_of(alert)[name] for name in block.words} == block.words
