"""Files of the history: written by day and size, resumed after a kill, counted where they cannot be, read in order."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from alertrouter import telemetry
from alertrouter.cli import main
from alertrouter.history.entries import Duplicate, Ended, Entry, encode, entries_of
from alertrouter.history.reading import STANDARD_INPUT, Damaged, Line, Recorded, files_in, read
from alertrouter.history.writing import HistoryFiles, HistoryWriter
from tests.alerts import HOUR, MINUTE, NIGHT, Clock, make_alert
from tests.payloads import alertmanager_alert, alertmanager_body

DAY = 24 * HOUR


@dataclass
class Size:
    length: int
    added: int


class Stream:
    """A stream of the history in memory: entries with their ids, of which the first may be trimmed."""

    def __init__(self, *times: int) -> None:
        self.entries: list[tuple[str, Mapping[str, str]]] = []
        self.added = 0
        for at in times:
            self.add(at)

    def add(self, at: int) -> None:
        self.entries.append(
            (f"{at}-{self.added}", {"kind": "ended", "at": str(at), "id": f"a:{self.added}", "outcome": "delivered"})
        )
        self.added += 1

    async def read(self, first: str, most: int) -> Sequence[tuple[str, Mapping[str, str]]]:
        if first == "-":
            return self.entries[:most]
        after = first.removeprefix("(").split("-")
        return [each for each in self.entries if list(map(int, each[0].split("-"))) > list(map(int, after))][:most]

    async def extent(self) -> Size:
        return Size(len(self.entries), self.added)


def writer(folder: Path, stream: Stream, clock: Clock | None = None, **options: int) -> HistoryWriter:
    files = HistoryFiles(folder, **{"retention_ms": 30 * DAY, **options})
    return HistoryWriter(files, stream.read, stream.extent, clock or Clock())


def ids(folder: Path) -> list[str]:
    return [json.loads(line)["id"] for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def lines_of(*paths: Path) -> tuple[list[Line], list[Damaged]]:
    damaged: list[Damaged] = []
    return list(read(paths, damaged.append)), damaged


async def test_each_day_has_a_file_and_a_full_one_is_followed_by_another(tmp_path: Path) -> None:
    stream = Stream(NIGHT, NIGHT + 1)
    writing = writer(tmp_path, stream, most_bytes=1)
    await writing.step()
    stream.add(NIGHT + 2)
    stream.add(NIGHT + DAY)
    await writing.step()
    assert [path.name for path in sorted(tmp_path.glob("*.jsonl"))] == [
        "history-2027-01-10.0000.jsonl",
        "history-2027-01-10.0001.jsonl",
        "history-2027-01-11.0000.jsonl",
    ]
    assert ids(tmp_path) == ["a:0", "a:1", "a:2", "a:3"]


async def test_files_older_than_the_retention_are_removed(tmp_path: Path) -> None:
    clock = Clock(NIGHT + 3 * DAY)
    stream = Stream(NIGHT, NIGHT + 2 * DAY)
    writing = writer(tmp_path, stream, clock, retention_ms=2 * DAY)
    await writing.step()
    assert len(list(tmp_path.glob("*.jsonl"))) == 1, "that of the day that ended before"
    clock.advance(2 * DAY)
    await writing.step()
    assert ids(tmp_path) == []


async def test_a_line_that_a_kill_cut_off_is_written_again(tmp_path: Path) -> None:
    stream = Stream(NIGHT, NIGHT + 1)
    await writer(tmp_path, stream).step()
    [path] = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-10])
    (tmp_path / ".lock").unlink()
    await writer(tmp_path, stream).step()
    assert ids(tmp_path) == ["a:0", "a:1"]


async def test_two_processes_never_write_to_one_folder(tmp_path: Path) -> None:
    stream = Stream(NIGHT)
    first, second = (HistoryFiles(tmp_path, retention_ms=DAY) for _ in range(2))
    writing, waiting = (HistoryWriter(files, stream.read, stream.extent, Clock()) for files in (first, second))
    await writing.step()
    assert not await waiting.step()
    assert ids(tmp_path) == ["a:0"]
    stream.add(NIGHT + 1)
    first.close()
    await waiting.step()
    assert ids(tmp_path) == ["a:0", "a:1"]


async def test_a_full_disk_loses_nothing_while_the_stream_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(NIGHT, NIGHT + 1)
    writing = writer(tmp_path, stream)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("alertrouter.history.writing.HistoryFiles._file_for", full)
        with pytest.raises(OSError, match="No space"):
            await writing.step()
    await writing.step()
    assert ids(tmp_path) == ["a:0", "a:1"]


def test_half_a_batch_is_taken_back_where_the_disk_is_full(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    files = HistoryFiles(tmp_path, retention_ms=DAY)
    files.append([("2027-01-10", b"{}")])
    [path] = files.all()
    whole = path.read_bytes()
    path.rename(tmp_path / "kept")
    path.symlink_to("/dev/full")
    with pytest.raises(OSError):  # noqa: PT011 - of a device it says another thing than of a disk
        files.append([("2027-01-10", b"{}")])
    assert (tmp_path / "kept").read_bytes() == whole


async def test_what_is_trimmed_unwritten_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alertrouter.history.writing._BATCH", 2)
    lost = telemetry.HISTORY_LOST._value
    before = lost.get()
    stream = Stream(NIGHT, NIGHT + 1)
    writing = writer(tmp_path, stream)
    await writing.step()
    for number in range(7):
        stream.add(NIGHT + 2 + number)
    del stream.entries[:5]  # two of them were written
    while await writing.step():
        assert lost.get() - before == 3, "once, though it is behind"
    assert ids(tmp_path) == ["a:0", "a:1", "a:5", "a:6", "a:7", "a:8"]
    assert lost.get() - before == 3


async def test_what_was_trimmed_before_the_first_file_is_no_loss(tmp_path: Path) -> None:
    before = telemetry.HISTORY_LOST._value.get()
    stream = Stream(NIGHT, NIGHT + 1, NIGHT + 2)
    del stream.entries[0]
    await writer(tmp_path, stream).step()
    assert ids(tmp_path) == ["a:1", "a:2"]
    assert telemetry.HISTORY_LOST._value.get() == before


# entries


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kind": "of a later version", "at": "5"},
        {"kind": "ended", "at": "five", "id": "a:b", "outcome": "delivered"},
        {"kind": "duplicate", "at": "5", "heard": "no json"},
        {"kind": "shadow", "at": "5", "id": "a:b", "differences": "{"},
    ],
)
def test_an_entry_that_cannot_be_read_is_passed_over(fields: dict[str, str]) -> None:
    assert list(entries_of("5-0", fields)) == []


def test_a_heard_entry_is_read_back_as_the_alert_that_it_was() -> None:
    alert = make_alert(
        status="resolved", ended=NIGHT + 5, text="naïve \ud83d\udca5".encode("utf-16", "surrogatepass").decode("utf-16")
    )
    fields = {"kind": "heard", "at": "5", "id": alert.id, "news": "new", "alert": encode(alert).decode()}
    [entry] = entries_of("5-0", fields)
    read_back = msgspec.json.decode(encode(entry), type=Recorded)
    assert read_back.alert == alert


# reading


def write(path: Path, *entries: Entry | Recorded | bytes) -> Path:
    path.write_bytes(b"".join((each if isinstance(each, bytes) else encode(each)) + b"\n" for each in entries))
    return path


def ended(at: int, id_: str = "a:b", entry: str = "") -> Ended:
    return Ended(at=at, id=id_, outcome="delivered", entry=entry)


def test_damaged_lines_are_named_and_the_others_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl", ended(1), b'{"kind":"ended"', b"", b"\xff\xfe", b'{"kind":"ended","at":"x"}', ended(2)
    )
    lines, damaged = lines_of(path)
    assert [line.at for line in lines] == [1, 2]
    assert [each.place for each in damaged] == [f"{path}:{number}" for number in (2, 4, 5)]


def test_an_alert_that_makes_no_sense_damages_its_line(tmp_path: Path) -> None:
    good = encode(Recorded(at=1, alert=make_alert()))
    path = write(tmp_path / "x.jsonl", good, good.replace(b'"firing"', b'"on fire"'))
    lines, [damaged] = lines_of(path)
    assert len(lines) == 1
    assert damaged.place == f"{path}:2" and "on fire" in damaged.reason


def test_files_are_merged_by_time_and_what_two_replicas_wrote_is_told_once(tmp_path: Path) -> None:
    one = write(tmp_path / "1.jsonl", ended(1, entry="1-0"), ended(4, entry="4-0"))
    two = write(tmp_path / "2.jsonl", ended(1, entry="1-0"), ended(1, "a:c", entry="1-0"), ended(2), ended(2))
    lines, _ = lines_of(one, two)
    assert [(line.at, line.id) for line in lines] == [(1, "a:b"), (1, "a:c"), (2, "a:b"), (2, "a:b"), (4, "a:b")]


def test_what_is_put_down_late_comes_in_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", ended(NIGHT), ended(NIGHT + 10 * MINUTE), ended(NIGHT + 5 * MINUTE))
    assert [line.at for line in lines_of(path)[0]] == [NIGHT, NIGHT + 5 * MINUTE, NIGHT + 10 * MINUTE]


def test_a_folder_stands_for_its_files_compressed_ones_too(tmp_path: Path) -> None:
    write(tmp_path / "2.jsonl", ended(2))
    (tmp_path / "1.jsonl.gz").write_bytes(gzip.compress(encode(ended(1)) + b"\n"))
    (tmp_path / "notes.txt").write_text("no history")
    assert [line.at for line in lines_of(*files_in([tmp_path]))[0]] == [1, 2]


def test_a_compressed_file_that_ends_too_early_is_damaged_there(tmp_path: Path) -> None:
    path = tmp_path / "1.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(encode(ended(number)) + b"\n" for number in range(5000)))[:-20])
    lines, [damaged] = lines_of(path)
    assert 0 < len(lines) <= 5000 and damaged.place.startswith(str(path))


def test_bodies_of_senders_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.loads(alertmanager_body(alertmanager_alert(n="1"), alertmanager_alert(n="2")))
    webhook = json.dumps({"kind": "webhook", "at": NIGHT, "source": "alertmanager/team-a", "body": body})
    strange = json.dumps({"kind": "webhook", "at": NIGHT, "source": "pigeon", "body": {}})
    text = f"{webhook}\n{strange}\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    lines, [damaged] = lines_of(STANDARD_INPUT)
    assert [line.id.partition(":")[0] for line in lines] == ["alertmanager/team-a"] * 2
    assert damaged.place == "standard input:2" and "pigeon" in damaged.reason


def test_a_duplicate_is_a_short_line() -> None:
    assert len(encode(Duplicate(at=NIGHT, id=make_alert().id, status="firing", entry=f"{NIGHT}-0"))) < 150


@pytest.mark.parametrize("options", [(), ("-o", "jsonl"), ("--alert",)])
def test_what_anybody_wrote_into_a_file_moves_no_cursor(tmp_path: Path, options: tuple[str, ...]) -> None:
    """No parser of ours has looked at it, as at what an older version wrote."""
    hostile = "\x9b2J\u202e\x00\nid"
    path = tmp_path / "recorded.jsonl"
    alert = make_alert(hostile, summary=hostile, service=hostile)
    path.write_bytes(encode(Recorded(at=NIGHT, id=alert.id, alert=alert)) + b"\n")
    options += (alert.id,) if options == ("--alert",) else ()
    done = CliRunner().invoke(main, ["history", "--since", "2020-01-01", "--path", str(path), *options])
    assert done.exit_code == 0 and "\\u202e" in done.stdout, done.output
    assert all(line.isprintable() for line in done.stdout.split("\n"))
