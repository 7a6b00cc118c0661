"""The journal: what it confirmed is there after a crash, and nothing half-written spoils it."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from alertrouter.delivery import journal as journal_module
from alertrouter.delivery.journal import Begun, Ended, Entry, Journal
from alertrouter.record import State
from tests.alerts import NIGHT, make_alert

KEY = "k" * 32


def begun(journal: Journal, fingerprint: str = "f00d", at: int = NIGHT) -> Begun:
    return Begun(journal.next_number(), at, make_alert(fingerprint), "pagerduty:default", KEY)


async def test_what_was_written_is_read_back_in_the_order_it_was_heard(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "me")
    late, early, unknown = begun(journal, "late", NIGHT + 2), begun(journal, "early"), begun(journal, "?", NIGHT + 3)
    await asyncio.gather(*map(journal.append, (late, early, unknown)))
    await journal.append(Ended(early.number, State.TRIGGERED))
    await journal.append(Ended(late.number, State.NOTHING))
    assert journal.read() == [Entry(early, State.TRIGGERED), Entry(late, State.NOTHING), Entry(unknown, None)]


async def test_it_is_for_this_user_only_and_shows_no_key(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "me")
    line = begun(journal)
    await journal.append(line)
    [file] = (tmp_path / "journal").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert KEY not in repr(line)


async def test_forgotten_only_as_far_as_it_was_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "me")
    await journal.append(begun(journal))
    size = journal.size
    await journal.append(begun(journal, "beef"))
    assert not journal.forget(size)
    assert len(journal.read()) == 2
    assert journal.forget(journal.size)
    assert (journal.size, journal.read()) == (0, [])
    await journal.append(begun(journal, "cafe"))
    assert [entry.begun.alert.fingerprint for entry in journal.read()] == ["cafe"]


@pytest.mark.parametrize("garbage", [b'{"type":"begun","number":7', b"\xff\xfe\n", b"null\n", b'{"type":"other"}\n'])
async def test_a_torn_or_broken_line_spoils_no_other(tmp_path: Path, garbage: bytes) -> None:
    dead = Journal(tmp_path / "journal", "dead")
    await dead.append(begun(dead))
    dead.close()
    with (tmp_path / "journal" / "dead.jsonl").open("ab") as file:
        file.write(garbage)
    journal = Journal(tmp_path / "journal", "me")
    [path] = journal.others()
    with journal.adopting(path) as entries:
        assert [entry.begun.alert.fingerprint for entry in entries] == ["f00d"]
    assert journal.others() == [], "what was taken in is gone"


async def test_the_file_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    living = Journal(tmp_path / "journal", "living")
    await living.append(begun(living))
    journal = Journal(tmp_path / "journal", "me")
    [path] = journal.others()
    with journal.adopting(path) as entries:
        assert entries == []
    assert len(living.read()) == 1


async def test_an_adoption_that_fails_is_begun_again(tmp_path: Path) -> None:
    dead = Journal(tmp_path / "journal", "dead")
    await dead.append(begun(dead))
    dead.close()
    journal = Journal(tmp_path / "journal", "me")
    with pytest.raises(ConnectionError), journal.adopting(journal.others()[0]):
        raise ConnectionError
    assert len(journal.others()) == 1


async def test_where_nothing_can_be_written_appending_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "journal", "me")
    with pytest.raises(OSError, match="Not a directory"):
        await journal.append(begun(journal))
    assert journal.size == 0


async def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up takes part of a line: the next one must not be glued to it."""
    journal = Journal(tmp_path / "journal", "me")
    await journal.append(begun(journal))
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:10]))
    with pytest.raises(OSError, match="10 of"):
        await journal.append(begun(journal, "beef"))
    monkeypatch.undo()
    await journal.append(begun(journal, "cafe"))
    assert [entry.begun.alert.fingerprint for entry in journal.read()] == ["f00d", "cafe"]


async def test_it_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal", "me")
    await journal.append(begun(journal))
    monkeypatch.setattr(journal_module, "MOST_BYTES", journal.size + 10)
    with pytest.raises(OSError, match=r"bound of \d+ bytes"):
        await journal.append(begun(journal))
    assert len(journal.read()) == 1


async def test_an_empty_journal_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "me")
    journal.open()
    journal.close()
    assert list((tmp_path / "journal").iterdir()) == []
