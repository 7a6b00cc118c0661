"""Which git commit the rules came from, read from the files of git: no git program is needed beside the service."""

from __future__ import annotations

from pathlib import Path

#: A link from a link from a link is somebody's mistake.
_MOST_HOPS = 5


def git_revision(directory: Path) -> str:
    """The commit checked out around `directory`, as 40 hex digits; "" if it is in no repository or cannot be told."""
    directory = directory.resolve()
    for folder in (directory, *directory.parents):
        if (folder / ".git").exists():
            try:
                return _head(_git_folder(folder / ".git"))
            except (OSError, UnicodeDecodeError):
                return ""
    return ""


def _git_folder(entry: Path) -> Path:
    """Where git keeps its files; in a worktree or submodule `.git` is a file that names the place."""
    if entry.is_dir():
        return entry
    return (entry.parent / entry.read_text().removeprefix("gitdir:").strip()).resolve()


def _head(git: Path) -> str:
    shared = git / "commondir"
    common = (git / shared.read_text().strip()).resolve() if shared.exists() else git
    value = (git / "HEAD").read_text().strip()
    for _ in range(_MOST_HOPS):
        if not value.startswith("ref:"):
            return value
        value = _ref(git, common, value.removeprefix("ref:").strip())
    return ""


def _ref(git: Path, common: Path, name: str) -> str:
    for folder in (git, common):
        if (folder / name).is_file():
            return (folder / name).read_text().strip()
    packed = common / "packed-refs"
    lines = packed.read_text().splitlines() if packed.exists() else []
    return next((line.partition(" ")[0] for line in lines if line.endswith(f" {name}")), "")
