"""Writes the documentation that is made from code: a page for each check, the schema of each rule file, and that of test files.

Run it with `python -m tools.generate_docs` after a change of a check or of the shape of a rule or test file.
"""

from __future__ import annotations

from pathlib import Path

from alertrouter.rules.check import FINDERS, pages
from alertrouter.rules.json_schema import schemas
from alertrouter.simulation.schema import schema

DOCS = Path(__file__).parents[1] / "docs"


def generated() -> dict[str, str]:
    """Every generated file, by its path under docs/."""
    checks = {f"checks/{check}.md": _page(check, text) for check, text in pages().items()}
    shapes = {f"schema/{name}": text for name, text in {**schemas(), "test.schema.json": schema()}.items()}
    return {"checks/README.md": _contents(), **checks, **shapes}


def _page(check: str, text: str) -> str:
    by_loader = (
        ""
        if check in FINDERS
        else "\nThe rules are refused as long as this stands; a running router keeps the last good ones.\n"
    )
    return f"# {check}\n\n{text.strip()}\n{by_loader}"


def _contents() -> str:
    rows = "".join(f"| [{check}]({check}.md) | {text.partition(chr(10))[0]} |\n" for check, text in pages().items())
    return f"# What `alertrouter check` finds\n\n| check | finds |\n|---|---|\n{rows}"


def main() -> None:
    files = generated()
    for folder in ("checks", "schema"):
        (DOCS / folder).mkdir(exist_ok=True)
        for path in (DOCS / folder).iterdir():
            if f"{folder}/{path.name}" not in files:
                path.unlink()
    for name, text in files.items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
