"""What others answer and what we once wrote ourselves: it is read back whatever became of it."""

from __future__ import annotations

import gzip
import random
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec
from structlog.testing import capture_logs

from alertrouter import letter
from alertrouter.alert import Status
from alertrouter.delivery.journal import Begun, Ended, Journal
from alertrouter.destinations.pagerduty import (
    REASON_LIMIT,
    RETRY_AFTER_LIMIT_MS,
    Delivered,
    Refused,
    TryAgain,
    classify,
)
from alertrouter.history import entries
from alertrouter.history.reading import Damaged, read
from alertrouter.letter import Filter, Found, Letter, of_body
from alertrouter.record import State
from tests.alerts import NIGHT, make_alert
from tests.fuzz.inputs import Input, Target
from tests.fuzz.mutations import FRAGMENTS, VALUES, Mutator, Parts, take_apart
from tests.payloads import alertmanager_alert, alertmanager_body

_KEY = "d" * 32
_encode = msgspec.json.encode


@cache
def _folder() -> Path:
    """A directory that is gone with this process."""
    _folder.keep = keep = tempfile.TemporaryDirectory(prefix="alertrouter-fuzz-")  # type: ignore[attr-defined]
    return Path(keep.name)


# --- PagerDuty's answers ---------------------------------------------------------------------------------------------

_ANSWERS = (
    {"status": "success", "message": "Event processed", "dedup_key": "alertmanager:f00d"},
    {"status": "invalid event", "message": "Event object is invalid", "errors": ["'routing_key' is invalid", _KEY]},
    {"status": "throttle exceeded", "message": "Requests for this service are arriving too quickly."},
    {"error": {"routing_key": _KEY, "payload": {"summary": "x"}}},
)
_STATUSES = (
    100,
    200,
    202,
    202,
    204,
    301,
    400,
    400,
    401,
    403,
    404,
    408,
    413,
    418,
    429,
    429,
    500,
    502,
    503,
    504,
    520,
    999,
)
_RETRY_AFTER = (
    *("0", "1", "30", "-1", "1.5", "1e3", "٣", "²", "9" * 5_000, "0" * 5_000 + "1", "", " 7 ", "7, 8", "inf", "0x10"),
    *(
        "Sun, 10 Jan 2027 03:00:30 GMT",
        "Sun, 10 Jan 2027 03:00:30",
        "Sun, 10 Jan 0001 00:00:00 GMT",
        "10 Jan 27",
        "Sun",
    ),
    *(
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Sun, 99 Jan 2027 99:99:99 GMT",
        "Sun, 10 Jan 2027 03:00:30 +999999999",
        "\x00",
    ),
)


@cache
def _answers() -> tuple[tuple[Parts, ...], Mutator]:
    parts = tuple(take_apart(_encode(answer)) for answer in _ANSWERS)
    return (*parts, take_apart(b"<html><body>502 Bad Gateway</body></html>")), Mutator(parts)


def make_answer(chance: random.Random) -> Input:
    """A mutation of one of PagerDuty's answers, with any status and any pause."""
    parts, mutator = _answers()
    body = mutator.mutate(chance, chance.choice(parts)) if chance.random() < 0.9 else b""
    pause = chance.choice(_RETRY_AFTER)
    at = chance.randrange(len(pause) + 1)
    if chance.random() < 0.5:
        pause = pause[:at] + chance.choice(FRAGMENTS).decode("latin-1") + pause[at + 1 :]
    return Input(str(chance.choice(_STATUSES)), body, {"Retry-After": pause} if chance.random() < 0.5 else {})


def check_answer(given: Input) -> None:
    """One of three outcomes; only a 202 is one of success, no reason shows the key or is long, no pause is endless."""
    match classify(int(given.what), given.headers, given.data, NIGHT, _KEY):
        case Delivered():
            assert given.what == "202"
        case Refused(status, reason, _):
            assert 400 <= status < 500
            _check_reason(reason)
        case TryAgain(reason, pause, _, throttled):
            assert pause is None or 0 <= pause <= RETRY_AFTER_LIMIT_MS
            assert throttled is (given.what == "429") and (pause is not None or not throttled)
            _check_reason(reason)


def _check_reason(reason: str) -> None:
    assert 0 < len(reason) <= REASON_LIMIT + len("HTTP 999: ") and reason.isprintable(), reason
    assert _KEY not in reason


# --- dead letters ----------------------------------------------------------------------------------------------------


@cache
def _letters() -> tuple[tuple[Parts, ...], Mutator]:
    alert = make_alert()
    written = (
        of_body("datadog", b"{not json", "application/json", 400, "not JSON", NIGHT),
        of_body("datadog/team-a", b"\xff\x00\xfe", "", 400, "not JSON", NIGHT),
        Letter("no", at=NIGHT, id=alert.id, event=msgspec.Raw(b'{"a":1}'), alert=letter.kept_alert(alert), version=3),
    )
    parts = tuple(take_apart(letter.encode(each)) for each in written)
    return parts, Mutator(parts)


def make_letter(chance: random.Random) -> Input:
    """A mutation of a dead letter as it is in Redis."""
    parts, mutator = _letters()
    return Input("letter", mutator.mutate(chance, chance.choice(parts)))


def check_letter(given: Input) -> None:
    """It is read, shown and filtered whatever it holds; its body is whole or not there."""
    read_back = letter.read(given.data)
    body = read_back.original_body()
    assert body is None or len(body) == read_back.size
    read_back.heard_alert()
    found = Found(7, b"a", read_back, "stands")
    for whole in (False, True):
        _encode(found.as_json(whole=whole))
    Filter(reason="size", source="datadog", since=5).takes(found)


# --- journal ---------------------------------------------------------------------------------------------------------


@cache
def _journals() -> tuple[tuple[Parts, ...], Mutator]:
    lines = [
        *(Begun(number, NIGHT, make_alert(str(number)), "pagerduty:default", _KEY) for number in range(3)),
        Begun(3, NIGHT, make_alert(status=Status.RESOLVED)),
        *(Ended(1, State.TRIGGERED), Ended(2, State.NOTHING)),
    ]
    parts = [take_apart(_encode(line)) for line in lines]
    return tuple(parts), Mutator(parts)


def make_journal(chance: random.Random) -> Input:
    """The journal of a dead process, some of its lines mutated."""
    return Input("journal.jsonl", _mutated_lines(chance, *_journals()))


def _mutated_lines(chance: random.Random, lines: tuple[Parts, ...], mutator: Mutator) -> bytes:
    return b"".join(
        (mutator.mutate(chance, line) if chance.random() < 0.4 else line.text) + b"\n"
        for line in chance.choices(lines, k=5)
    )


def check_journal(given: Input) -> None:
    """What can be read is read, and of each line that cannot be, the log says where it is."""
    path = _folder() / given.what
    path.write_bytes(given.data)
    with capture_logs() as log, Journal(_folder(), "me").adopting(path) as found:
        assert [entry.begun.at for entry in found] == sorted(entry.begun.at for entry in found)
        _encode(found)
    lines = given.data.count(b"\n") + (not given.data.endswith(b"\n"))
    assert all(1 <= entry["line"] <= lines and entry["file"] == str(path) for entry in log), log
    assert not path.exists()


# --- recordings, for replay and history ------------------------------------------------------------------------------


@cache
def _recordings() -> tuple[tuple[Parts, ...], Mutator]:
    alert = msgspec.Raw(_encode(make_alert()))
    body = msgspec.json.decode(alertmanager_body(alertmanager_alert()))
    lines = [
        *(_encode(each) for each in (
            entries.Heard(at=NIGHT, id="alertmanager:f00d", entry="1-0", alert=alert, news="new", version=1),
            entries.Duplicate(at=NIGHT + 5, id="alertmanager:f00d", status="firing"),
            entries.Ended(at=NIGHT + 6, id="alertmanager:f00d", outcome="delivered", rule="r", service="s"),
            entries.Sent(at=NIGHT + 7, id="alertmanager:f00d", destination="pagerduty:default", result="delivered"),
            entries.Differed(at=NIGHT + 8, id="alertmanager:f00d", differences={"service": ("a", "b")}),
            entries.SilenceAdded(at=NIGHT, id="silence:1", owner="o", reason="r", ends_at=NIGHT + 60_000),
        )),
        _encode({"kind": "webhook", "at": NIGHT, "source": "alertmanager/a", "body": body}),
        _encode({"kind": "webhook", "at": NIGHT, "source": "datadog", "body": {"alert_id": 1, "transition": "Warn"}}),
    ]  # fmt: skip
    parts = [take_apart(line) for line in lines]
    return tuple(parts), Mutator(parts)


def make_recording(chance: random.Random) -> Input:
    """A recording for `replay`, some of its lines mutated; one in ten compressed and then damaged."""
    lines = _mutated_lines(chance, *_recordings())
    if chance.random() < 0.9:
        return Input("events.jsonl", lines)
    packed = bytearray(gzip.compress(lines, mtime=0))
    for _ in range(chance.randrange(3)):
        packed[chance.randrange(len(packed))] = chance.randrange(256)
    return Input("events.jsonl.gz", bytes(packed[: chance.randrange(1, len(packed) * 2)]))


def check_recording(given: Input) -> None:
    """Each line is read, in the order of time, or told of as damaged with its place."""
    path = _folder() / given.what
    path.write_bytes(given.data)
    damaged: list[Damaged] = []
    lines = list(read([path], damaged.append))
    assert all(each.place.startswith(f"{path}:") and each.reason for each in damaged)
    assert len(damaged) <= given.data.count(b"\n") + 1 or path.suffix == ".gz"
    _encode(lines)


_STREAMED: tuple[Mapping[str, str], ...] = (
    {"kind": "heard", "at": "5", "id": "a:b", "alert": '{"source":"a"}', "news": "new", "version": "1"},
    {"kind": "duplicate", "at": "5", "heard": '["firing a:b","resolved c:d"]'},
    {"kind": "shadow", "at": "5", "id": "a:b", "differences": '{"service":["a","b"]}'},
    {"kind": "sent", "at": "5", "id": "a:b", "destination": "d", "result": "delivered", "rerouted": "1"},
)


def make_entry(chance: random.Random) -> Input:
    """An entry of the history's stream, one of its fields something else."""
    fields = dict(chance.choice(_STREAMED))
    name = chance.choice(list(fields))
    fields[name] = chance.choice((*VALUES, *FRAGMENTS, b"[" * 5_000, b"heard", b"")).decode(errors="replace")
    return Input("stream", b"", fields)


def check_entry(given: Input) -> None:
    """It is read or passed over, and what is read can be written."""
    for entry in entries.entries_of("1-0", given.headers):
        entries.kind_of(entry)
        _encode(entry)


ANSWERS = Target("answers", make_answer, check_answer)
LETTERS = Target("letters", make_letter, check_letter)
JOURNALS = Target("journals", make_journal, check_journal)
RECORDINGS = Target("recordings", make_recording, check_recording)
ENTRIES = Target("entries", make_entry, check_entry)
