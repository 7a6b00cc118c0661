"""The commit of the rules, read without git and checked against git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from alertrouter.rules.revision import git_revision


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / "router.yaml").write_text("catch_all: {route_to: unrouted}\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "rules")
    return folder


@pytest.mark.parametrize("prepare", [(), ("pack-refs", "--all"), ("checkout", "-q", "--detach")])
def test_the_commit_checked_out(repository: Path, prepare: tuple[str, ...]) -> None:
    if prepare:
        git(repository, *prepare)
    assert git_revision(repository / "rules") == git(repository, "rev-parse", "HEAD")


def test_a_worktree_as_git_sync_makes_it(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    (tmp_path / "link").symlink_to(tmp_path / "tree" / "rules")
    assert git_revision(tmp_path / "link") == git(tmp_path / "tree", "rev-parse", "HEAD")


def test_no_repository_and_a_broken_one(tmp_path: Path) -> None:
    assert git_revision(tmp_path) == ""
    (tmp_path / ".git").write_bytes(b"gitdir: nowhere\xff")
    assert git_revision(tmp_path) == ""
