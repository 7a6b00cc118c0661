"""Writes what the service consists of as a software bill of materials, CycloneDX 1.6 in JSON.

`make sbom` writes dist/alertrouter.cdx.json: every package of requirements/runtime.txt with the hashes of its files, its
licence, and what needs what. The same packages give the same file. https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "runtime.txt"
OUTPUT = ROOT / "dist" / "alertrouter.cdx.json"
_PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>.+?))?(?: --hash|$)")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of the lock. marker: where it is installed, "" for everywhere.  hashes: SHA-256 of its files, in hex."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    @property
    def purl(self) -> str:
        """Its package URL: https://github.com/package-url/purl-spec"""
        return f"pkg:pypi/{self.name}@{self.version}"


def pins(lock: str) -> Iterator[Pin]:
    """The packages of a lock, in its order. ValueError for a line that pins nothing."""
    text = re.sub(r"(?m)^\s*#.*\n?", "", lock)
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        found = _PIN.match(line)
        hashes = tuple(sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", line)))
        if not found or not hashes:
            raise ValueError(f"the lock pins nothing by {line!r}")
        yield Pin(found["name"], found["version"], found["marker"] or "", hashes)


def bill(shipped: list[Pin], ours: Mapping[str, str], installed: Mapping[str, Distribution]) -> dict[str, Any]:
    """The bill of materials. ours: name, version, licence and description of the service itself."""
    root = f"pkg:pypi/{ours['name']}@{ours['version']}"
    by_name = {pin.name: pin.purl for pin in shipped}
    needs = {pin.purl: _needed(installed[pin.name], by_name) for pin in shipped if pin.name in installed}
    needs[root] = _needed(installed[ours["name"]], by_name) if ours["name"] in installed else sorted(by_name.values())
    content = {
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": ours["name"],
                "version": ours["version"],
                "description": ours["description"],
                "purl": root,
                "licenses": [{"expression": ours["licence"]}],
            },
        },
        "components": [_component(pin, installed.get(pin.name)) for pin in shipped],
        "dependencies": [{"ref": ref, "dependsOn": needed} for ref, needed in sorted(needs.items())],
    }
    number = uuid5(NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        **content,
    }


def _component(pin: Pin, found: Distribution | None) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "purl": pin.purl,
        # one for each file that the lock allows: the source, and a wheel for each platform
        "hashes": [{"alg": "SHA-256", "content": each} for each in pin.hashes],
    }
    if found is not None and (licences := _licences(found)):
        component["licenses"] = licences
    if pin.marker:
        component["properties"] = [{"name": "alertrouter:marker", "value": pin.marker}]
    return component


def _licences(found: Distribution) -> list[dict[str, Any]]:
    """What its metadata says: an SPDX expression, or a name in words."""
    metadata = found.metadata
    for expression in metadata.get_all("License-Expression") or ():
        return [{"expression": expression}]
    names = [
        line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or () if line.startswith("License ::")
    ]
    names = names or [said for said in metadata.get_all("License") or () if said.strip() and "\n" not in said]
    return [{"license": {"name": name}} for name in names]


def _needed(found: Distribution, by_name: Mapping[str, str]) -> list[str]:
    """The packages of the lock that it asks for, on any platform, with or without extras."""
    names = {re.sub(r"[-_.]+", "-", Requirement(line).name).lower() for line in found.requires or ()}
    return sorted(by_name[name] for name in names & by_name.keys())


def _installed(names: list[str]) -> dict[str, Distribution]:
    found = {}
    for name in names:
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # it is for another platform
            continue
    return found


def main() -> None:
    """Write the file, and say where."""
    shipped = list(pins(LOCK.read_text()))
    itself = distribution("alertrouter").metadata
    ours = {
        "name": "alertrouter",
        "version": itself["Version"],
        "licence": itself["License-Expression"],
        "description": itself["Summary"],
    }
    made = bill(shipped, ours, _installed([ours["name"], *(pin.name for pin in shipped)]))
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(made, indent=2) + "\n")
    sys.stdout.write(f"{OUTPUT.relative_to(ROOT)}: {len(made['components'])} packages\n")


if __name__ == "__main__":
    main()
