"""What happened to one alert, on one screen: its entries of the history in plain words. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from alertrouter.history.entries import Differed, Duplicate, Ended, LetterMoved, Sent, SilenceAdded, SilenceEnded
from alertrouter.history.reading import Line, Recorded
from alertrouter.record import Outcome, State
from alertrouter.shown import no_command

#: Steps that are shown at the begin and at the end where there are more than fit a screen.
_FIRST, _LAST = 10, 25
_SHOWN = 200
_OPEN = frozenset({State.TRIGGERED, State.ACKNOWLEDGED})
_STATUS = {"firing": "fires", "acknowledged": "acknowledged", "resolved": "resolved"}
_NEWS = {
    "severity": "its severity changed",
    "content": "its text changed",
    "episode": "it started anew",
    "refresh": "unchanged, and forwarded again after a while",
    "again": "unchanged, and judged again because it did not get through",
    "stale": "older than what fires now, so it closes nothing",
    "older": "told of late; newer was heard since",
}
_NOBODY = {
    Outcome.RESOLVED_BEFORE_DELIVERY.value: "it was over before it could be sent",
    Outcome.CANCELLED_IN_SUSPEND.value: "it was resolved while the rules held it back",
}


@dataclass(slots=True)
class _Step:
    """Something that happened, once or several times in a row."""

    at: int
    text: str
    last: int
    count: int = 1


@dataclass(slots=True)
class _Book:
    """What is known by the end: how each destination stands and since when, and how it was judged last."""

    heard: Recorded | None = None
    stands: dict[str, tuple[str, int]] = field(default_factory=dict)
    failed: dict[str, tuple[int, str]] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)
    ended: Ended | None = None
    judged: tuple[str, str] = ("", "")
    pages: int = 0


def story(lines: Sequence[Line]) -> Iterator[str]:
    """The lines of the screen; the third says how it stands. `lines` are all of one alert, in the order of time."""
    book, steps = _Book(), list[_Step]()
    together: dict[Hashable, _Step] = {}
    for line in lines:
        for fold, text in _steps(line, book):
            if fold is not None and (before := together.get(fold)) is not None:
                before.count, before.last = before.count + 1, line.at
                continue
            step = _Step(line.at, text, line.at)
            steps.append(step)
            if fold is None:
                together.clear()
            else:
                together[fold] = step
    yield next((line.id for line in lines if not isinstance(line, SilenceAdded | SilenceEnded)), "")
    if book.heard is not None:
        yield no_command(_cut(book.heard.alert.event.summary))
    yield f"{_end(book)}."
    yield ""
    yield from _dated(steps)


def _dated(steps: Sequence[_Step]) -> Iterator[str]:
    """Each step with its time of day, below its day; where there are too many, without those in the middle."""
    left_out = len(steps) - _FIRST - _LAST
    day = ""
    for number, step in enumerate(steps):
        if left_out > 1 and _FIRST <= number < _FIRST + left_out:
            if number == _FIRST:
                yield f"          … {left_out} more in between; -o jsonl has all of them"
            continue
        if (today := f"{_moment(step.at):%Y-%m-%d}") != day:
            day = today
            yield f"{day} UTC"
        more = f", {step.count} times until {_moment(step.last):%H:%M:%S}" if step.count > 1 else ""
        yield f"{_moment(step.at):%H:%M:%S}  {step.text}{more}"


def _steps(line: Line, book: _Book) -> Iterable[tuple[Hashable, str]]:
    """What an entry says, each with what it may be folded by; notes in the book what it changes."""
    match line:
        case Recorded():
            return [(None, _heard(line, book))]
        case Duplicate():
            return [((line.status,), f"heard again: {_STATUS.get(line.status, line.status)}, unchanged")]
        case Ended():
            book.ended = line
            book.judged = (line.service, line.rule)
            return [(None, _ended(line))]
        case Sent():
            return [*_judged(line, book), _sent(line, book)]
        case SilenceAdded():
            return [
                (None, f"silenced by {line.owner} until {_moment(line.ends_at):%Y-%m-%d %H:%M}: {_cut(line.reason)}")
            ]
        case SilenceEnded():
            return [(None, f"the silence of {line.owner} is over" + (f": {line.by} ended it" if line.by else ""))]
        case LetterMoved():
            where = f" of {line.destination}" if line.destination else ""
            return [
                (None, f"its dead letter{where} was {line.result}" + (f": {_cut(line.reason)}" if line.reason else ""))
            ]
        case Differed():
            return []


def _heard(line: Recorded, book: _Book) -> str:
    status, event = line.alert.status.value, line.alert.event
    text = f"heard: {_STATUS[status]}" + (f", {event.severity.value}" if status == "firing" else "")
    if line.news not in ("stale", "older"):
        book.heard, book.ended = line, None
        book.failed.clear()
    return f"{text} ({why})" if (why := _NEWS.get(line.news)) else text


def _ended(line: Ended) -> str:
    by = f"by rule {line.rule}" if line.rule else "by no rule"
    of = f", as one of {line.service}" if line.service else ""
    match line.outcome:
        case Outcome.SUPPRESSED if line.rule.startswith("silence:"):
            return f"kept back{of}: {_cut(line.reason)}"
        case Outcome.SUPPRESSED:
            return f"kept back {by}{of}: {_cut(line.reason)}"
        case Outcome.DROPPED:
            return f"dropped {by}: {_cut(line.reason)}"
        case Outcome.DELIVERED:
            return "nothing to send: what was told stands"
    return f"nobody is paged: {_NOBODY.get(line.outcome, line.outcome.replace('_', ' '))}"


def _judged(line: Sent, book: _Book) -> Iterator[tuple[Hashable, str]]:
    """For whom it was sent, and by which rule, where that was not said yet."""
    if (line.service, line.rule) not in (book.judged, ("", "")):
        book.judged = (line.service, line.rule)
        yield None, f"judged: for {line.service or 'no service'}" + (f", by rule {line.rule}" if line.rule else "")


def _sent(line: Sent, book: _Book) -> tuple[Hashable, str]:
    place, said = line.destination, f" ({_cut(line.reason)})" if line.reason else ""
    by = " by the fallback's key" if line.rerouted else ""
    match line.result:
        case "delivered":
            before = book.stands.get(place, ("", 0))[0]
            book.failed.pop(place, None)
            book.dead.pop(place, None)
            if line.state in _OPEN:
                book.ended = None  # whatever kept it back does no more
            if line.state != before:
                book.stands[place] = (line.state, line.at)
            return None, f"{_told(line, before, book)}{by}{said}"
        case "again":
            book.failed[place] = (book.failed.get(place, (0, ""))[0] + 1, line.reason)
            return (place, line.reason), f"sent to {place}{by}: NOT TAKEN{said}, to be tried again"
        case "changed":
            return None, f"sent to {place}{by}: REFUSED{said}, and sent again in another form"
        case "refused":
            book.dead[place] = line.reason
            return None, f"sent to {place}{by}: REFUSED FOR GOOD, kept as a dead letter: {_letter(line.reason)}"
    return None, f"sent to {place}{by}: no answer{said}"


def _told(line: Sent, before: str, book: _Book) -> str:
    match line.state:
        case State.TRIGGERED if before in _OPEN:
            return f"told again: {line.destination} took it, and has it open already"
        case State.TRIGGERED:
            book.pages += 1
            return f"PAGED: {line.destination} took it"
        case State.ACKNOWLEDGED:
            return f"acknowledged: {line.destination} took it"
        case State.RESOLVED:
            return f"RESOLVED: {line.destination} took it"
    return f"sent: {line.destination} took it"


def _letter(text: str) -> str:
    """What a dead letter says, without the rest of it."""
    _, _, reason = text.partition('"reason":"')
    return _cut(reason.partition('","')[0] or text)


def _end(book: _Book) -> str:
    """How it stands, in one sentence."""
    status = f"it {_STATUS[book.heard.alert.status.value]}" if book.heard else "what was heard is no longer on record"
    if book.dead:
        return f"NOT DELIVERED: refused by {', '.join(book.dead)}, and kept as a dead letter; {status}"
    if book.failed:
        place, (times, reason) = next(iter(book.failed.items()))
        return f"NOT DELIVERED YET: {place} failed {times} times, at last with {_cut(reason)}; {status}"
    open_at = {place: at for place, (state, at) in book.stands.items() if state in _OPEN}
    if open_at:
        kept = f"; news of it is {_ended(book.ended)}" if book.ended and book.ended.outcome in _KEPT else ""
        places = ", ".join(open_at)
        return f"Open at {places} since {_moment(min(open_at.values())):%Y-%m-%d %H:%M:%S} UTC, {_pages(book)}{kept}"
    if book.ended is not None and book.ended.outcome in _KEPT:
        return f"Nobody {'is' if book.pages else 'was'} paged: {_ended(book.ended)}"
    if book.stands:
        place, (_, at) = max(book.stands.items(), key=lambda each: each[1][1])
        return f"Resolved at {place} since {_moment(at):%Y-%m-%d %H:%M:%S} UTC, {_pages(book)}"
    if book.ended is not None:
        return f"{_ended(book.ended).capitalize()}"
    return "Heard, and nothing was decided or sent yet" if book.heard else "Nothing was sent as far as is on record"


_KEPT = frozenset({Outcome.SUPPRESSED.value, Outcome.DROPPED.value})


def _pages(book: _Book) -> str:
    return "paged once" if book.pages == 1 else f"paged {book.pages} times"


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
