"""What is installed is what was tested: hashes on every way in, a bill of materials, and claims that a test stands behind."""

from __future__ import annotations

import ast
import re
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from tools.sbom import Pin, bill, pins

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements" / "runtime.txt").read_text()
OURS = {"name": "alertrouter", "version": "1", "licence": "Apache-2.0", "description": "a router"}


def installs() -> list[str]:
    """Every `pip install` of the Makefile, the image and the action, what a shell continues joined to one line."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    scripts = "\n".join(step.get("run", "") for step in action["runs"]["steps"])
    makefile = (ROOT / "Makefile").read_text().partition(".DEFAULT_GOAL")[2].replace("$(PIP)", "pip install")
    texts = [(ROOT / "Dockerfile").read_text(), scripts, makefile]
    lines = re.sub(r"\s*\\\n\s*", " ", "\n".join(texts)).splitlines()
    commands = [each.strip() for line in lines for each in re.split(r"&&|;", line)]
    return [each for each in commands if re.search(r"\bpip\"? .*install|\bpip install", each)]


def test_every_way_to_install_asks_for_hashes() -> None:
    found = installs()
    assert len(found) >= 9
    for each in found:
        by_hash = "--require-hashes -r" in each
        itself = "--no-deps" in each  # our own wheel or tree, whose packages are there by then
        a_release = each.endswith('"alertrouter==$VERSION"') and "--constraint" in each
        assert by_hash or itself or a_release, each


def test_every_package_is_in_the_bill_with_its_hashes() -> None:
    shipped = list(pins(LOCK))
    installed = {pin.name: distribution(pin.name) for pin in shipped if pin.name in ("aiohttp", "redis", "yarl")}
    made = bill(shipped, OURS, installed)
    assert made["bomFormat"] == "CycloneDX" and made["specVersion"] == "1.6"
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made["serialNumber"])
    by_name = {component["name"]: component for component in made["components"]}
    assert list(by_name) == re.findall(r"(?m)^([a-z0-9-]+)==", LOCK)
    assert sum(len(component["hashes"]) for component in by_name.values()) == LOCK.count("--hash=sha256:")
    for component in made["components"]:
        assert component["purl"] == component["bom-ref"] == f"pkg:pypi/{component['name']}@{component['version']}"
    needs = {each["ref"]: each["dependsOn"] for each in made["dependencies"]}
    known = {component["bom-ref"] for component in made["components"]}
    assert known >= {ref for needed in needs.values() for ref in needed}
    assert by_name["yarl"]["bom-ref"] in needs[by_name["aiohttp"]["bom-ref"]]
    assert by_name["redis"]["licenses"] == [{"expression": "MIT"}]
    assert made == bill(shipped, OURS, installed), "the same packages give the same file"


def test_a_line_of_the_lock_that_pins_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="pins nothing"):
        list(pins("aiohttp>=3\n"))
    with pytest.raises(ValueError, match="pins nothing"):
        list(pins("aiohttp==3.14.5\n"))
    assert list(pins("a==1 ; sys_platform == 'darwin' \\\n    --hash=sha256:" + "0" * 64)) == [
        Pin("a", "1", "sys_platform == 'darwin'", ("0" * 64,))
    ]


SECURITY = (ROOT / "SECURITY.md").read_text()


def named_tests() -> set[tuple[str, str]]:
    """The tests that SECURITY.md names, as file and function."""
    return set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", SECURITY))


@pytest.mark.parametrize(("file", "name"), sorted(named_tests()))
def test_what_security_md_claims_has_its_test(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in functions


def test_each_worst_attack_is_stopped_by_a_test() -> None:
    walk = SECURITY.partition("## The worst attacks")[2].partition("\n## ")[0]
    attacks = re.split(r"(?m)^### ", walk)[1:]
    assert [attack.partition(".")[0] for attack in attacks] == [str(number) for number in range(1, 8)]
    for attack in attacks:
        rows = [line for line in attack.splitlines() if line.startswith("| ") and not line.startswith("| How")]
        assert rows, attack
        for row in rows:
            assert re.search(r"`tests/[\w/]+\.py::\w+`", row), row
