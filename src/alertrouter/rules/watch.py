"""Tells when the files of a rules directory may have changed. Says nothing about whether they did: load and compare.

Directories are watched, never files or links: an editor that renames over a file, a ConfigMap that swaps `..data` and
a git-sync link that is pointed elsewhere all leave a watched file or link silent for ever after.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from watchfiles import awatch

#: Changes closer together than this are told as one.
_DEBOUNCE_MS = 100
#: How often the files are looked at though no change was reported: a change may fall before the watch has begun.
_LOOK_EVERY_MS = 1_000

#: Path, time of change, size and inode of every file: equal as long as nothing changed.
Sight = frozenset[tuple[str, int, int, int]]


def look(directory: Path) -> Sight:
    """What the directory looks like now; empty if it is not there."""
    seen = []
    for folder, _, files in os.walk(directory.resolve(), followlinks=True):
        for name in files:
            path = Path(folder, name)
            try:
                found = path.stat()
            except OSError:  # gone meanwhile: half of a swap
                continue
            seen.append((str(path), found.st_mtime_ns, found.st_size, found.st_ino))
    return frozenset(seen)


async def changes(directory: Path, last: Sight) -> AsyncIterator[None]:
    """Yields each time `directory`, or the link that it is, looks different from `last`, or from the time before."""
    while True:
        # what a link points to is another directory after each swap, so after each change the watch begins anew
        try:
            async for _ in awatch(
                *_watched(directory),
                debounce=_DEBOUNCE_MS,
                step=20,
                recursive=False,
                rust_timeout=_LOOK_EVERY_MS,
                yield_on_timeout=True,
            ):
                if look(directory) != last:
                    break
        except OSError:  # not there, or gone between looking and watching
            await asyncio.sleep(_LOOK_EVERY_MS / 1000)
        if (now := look(directory)) != last:
            last = now
            yield


def _watched(directory: Path) -> list[Path]:
    """The directory, those below it, and the parents of the links on the way to it. OSError where it is not there."""
    directory = directory.absolute()
    inside = directory.resolve(strict=True)
    below = [path for path in inside.rglob("*") if path.is_dir()]
    return [inside, *below, *(path.parent for path in (directory, *directory.parents) if path.is_symlink())]
