"""docs/testing-rules.md: its files and commands, in their order, in an empty directory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "testing-rules.md"
_BLOCK = re.compile(r"^```(yaml|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: What is another figure on each machine.
_TOOK = re.compile(r"\d+\.\d\d s\)")


def run(command: str, folder: Path) -> str:
    """What a line on the page prints, standard error first."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env={"PATH": path}, capture_output=True, text=True, timeout=60
    )
    return done.stderr + done.stdout


def test_what_the_page_shows_is_what_comes(tmp_path: Path) -> None:
    shown, came = [], []
    for kind, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "yaml":
            if name := re.match(r"# (rules/\S+)\n", text):
                path = tmp_path / name[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            continue
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            shown.append(f"$ {command}\n{output}")
            came.append(f"$ {command}\n{run(command, tmp_path)}")
    assert len(shown) > 8
    for expected, found in zip(shown, came, strict=True):
        assert _TOOK.sub("… s)", found).strip() == _TOOK.sub("… s)", expected).strip()


def test_every_option_of_the_page_exists_and_every_option_is_on_it(tmp_path: Path) -> None:
    options = re.findall(r"--[a-z-]+", run("alertrouter test --help", tmp_path))
    assert set(options) - {"--help", "--output"} <= set(re.findall(r"--[a-z-]+", PAGE.read_text(encoding="utf-8")))
    on_it = PAGE.read_text(encoding="utf-8").partition("## All options")[2].partition("`--run` takes")[0]
    assert set(re.findall(r"--[a-z-]+", on_it)) <= set(options)
