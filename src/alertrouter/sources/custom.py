"""A sender of which alertrouter.yaml says where in its bodies everything stands: any tool that posts JSON or forms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.limits import LIMITS
from alertrouter.sources import values
from alertrouter.sources.alertmanager import SEVERITIES
from alertrouter.sources.body import is_form, read_form, read_json
from alertrouter.sources.bounds import DETAILS, fit_value, hashed
from alertrouter.sources.instant import UNKNOWN, Instant, read_epoch, read_rfc3339
from alertrouter.sources.payload import ParsedPayload, Parser, Skipped
from alertrouter.sources.text import links, one_line, quoted, unescaped

#: What paths are looked up in: `alert` is one alert of the body, `raw_event` the body itself.
View = Mapping[str, Any]

_Read = TypeVar("_Read")

#: What senders leave in a text when they know no value: $NAME, ${NAME}, $(NAME), {NAME}, {{name}}, *name*, %NAME%.
_UNFILLED = re.compile(
    r"\$\{?[A-Za-z_][\w.]*\}?|\$\([A-Za-z_]\w*\)|\{\{?[\s$#.]*[A-Za-z_][\w.#]*\s*\}?\}|\*[A-Za-z_]\w*\*|%[A-Za-z_]\w*%"
    r"|<no value>"
)
_UNFILLED_BEGIN = frozenset("${*%<")
#: As part of an identity: it would make one alert of many. {HOST.ID}-7, $ID:7.
_PARTLY_UNFILLED = re.compile(r"\{[A-Z][A-Z0-9_.]*\}|\$\{?[A-Za-z_]")

#: Words that stand for nothing, in small letters.
_NOTHING = frozenset(("", "null", "none", "undefined", "nil"))
_LONGEST_NOTHING = max(map(len, _NOTHING))
#: Go's zero time, and no seconds since 1970.
_NO_TIME = re.compile(r"0001-01-01T|0+(\.0*)?$")

#: What the parts of a list of labels may call the name.
_LABEL_NAMES = ("tag", "name", "key", "label")

#: Longest list of paths or words that a reason names.
_NAMED_LIMIT = 60

#: What the alerts of a body share is kept with each of them, in its details and beside it, as long as all these copies stay below this many bytes each.
_COPIES_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """A path, as written. `keys` lead to it from the alert or the body; `find` gives None where nothing is.

    is_shared:  it begins at the body, so all alerts of a body have the same there.
    """

    path: str
    keys: tuple[str | int, ...]
    is_shared: bool
    find: Callable[[View], Any] = field(compare=False, repr=False)


#: Paths of which the first that leads to a value counts.
Places = tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """Where a sender's bodies say what, and what its words mean. Words are kept in small letters.

    identity:    all of these together name the alert.
    statuses:    None for a word that neither opens nor closes an alert.
    known:       the words of `statuses` as they were written, for a refusal to name.
    alerts:      a list in the body; None where the body is one alert, or a list of them.
    severities:  what is not among them is read as Alertmanager's label is.
    details:     by the name they get; None: with no `labels` either, the whole alert.
    labels:      objects, or lists of names and values, whose members become details.
    links:       by their text.
    """

    identity: Places
    status: Places
    statuses: Mapping[str, Status | None]
    known: tuple[str, ...]
    alerts: Place | None = None
    severity: Places = ()
    severities: Mapping[str, Severity] = field(default_factory=lambda: MappingProxyType({}))
    default_severity: Severity = Severity.ERROR
    summary: Places = ()
    source: Places = ()
    component: Places = ()
    group: Places = ()
    class_: Places = ()
    episode: Places = ()
    started: Places = ()
    ended: Places = ()
    details: Mapping[str, Place] | None = None
    labels: Places = ()
    links: Mapping[str, Place] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class _Sight:
    """One alert in its body. `shared`: what was read for all alerts of the body, by path and by who read it."""

    view: View
    shared: dict[tuple[str, Callable[[Any], Any]], Any]

    def read(self, place: Place, read: Callable[[Any], _Read]) -> _Read:
        """What `read` makes of the value at a place. For each alert again, it would cost the body times its alerts."""
        if not place.is_shared:
            return read(place.find(self.view))
        if (place.path, read) not in self.shared:
            self.shared[place.path, read] = read(place.find(self.view))
        found: _Read = self.shared[place.path, read]
        return found


def parser(fields: Fields) -> Parser:
    """The parser for bodies that say everything in these fields."""
    return partial(_parse, fields)


def word(value: Any) -> str:
    """A status or severity as it is compared: in small letters."""
    return _said(value).casefold()


def _parse(fields: Fields, body: bytes, headers: Mapping[str, str], source: str) -> ParsedPayload:
    decoded = read_form(body) if is_form(headers.get("content-type", ""), body) else read_json(body)
    entries = _entries(fields, decoded.value)
    raws, notes = decoded.value, decoded.notes
    copy_limit = _COPIES_LIMIT // max(1, len(entries))
    if len(body) > copy_limit and _shared_size(fields, raws) > copy_limit:
        raws = None
        notes = (*notes, "the body has so many alerts that what they share was left out of raw_event")
    if len(body) > copy_limit and _shared_details_size(fields, decoded.value) > copy_limit:
        fields = _without_shared_details(fields)
        notes = (*notes, "the body has so many alerts that what they share was left out of the details")
    shared: dict[tuple[str, Callable[[Any], Any]], Any] = {}
    alerts: list[Alert] = []
    skipped: list[Skipped] = []
    ignored: list[str] = []
    for position, entry in enumerate(entries):
        sight = _Sight({"alert": entry, "raw_event": decoded.value}, shared)
        said = _first(fields.status, sight, _said)
        meant = said.casefold()
        status = fields.statuses.get(meant)
        fingerprint = _identify(fields.identity, sight)
        if meant not in fields.statuses:
            skipped.append(Skipped(position, _unknown_status(fields, said)))
        elif status is None:
            ignored.append(f"the status {quoted(said)} neither opens nor closes an alert")
        elif not fingerprint:
            skipped.append(
                Skipped(position, f"nothing tells it from others: no identity at {_named(fields.identity, ' and ')}")
            )
        else:
            raw = _narrowed(raws, fields.alerts.keys, entry) if fields.alerts else entry
            alerts.append(_read_alert(fields, sight, source, fingerprint, status, raw, notes))
    return ParsedPayload(tuple(alerts), tuple(skipped), tuple(ignored), notes=notes)


def _entries(fields: Fields, body: Any) -> Sequence[Any]:
    """The alerts as they stand in the body. Raises BadPayload."""
    if fields.alerts is not None:
        found = fields.alerts.find({"alert": body, "raw_event": body})
        if not isinstance(found, list):
            raise BadPayload(f"wrong shape: expected a list of alerts at {_named((fields.alerts,))}")
    elif isinstance(body, list):
        found = body
    elif isinstance(body, dict):
        found = [body]
    else:
        raise BadPayload("wrong shape: expected an object, a form or a list of objects")
    if len(found) > LIMITS.alerts:
        raise BadPayload(f"more than {LIMITS.alerts:,} alerts in one body", status=413)
    return found


def _read_alert(
    fields: Fields, sight: _Sight, source: str, fingerprint: str, status: Status, raw: Any, notes: tuple[str, ...]
) -> Alert:
    name = source.partition("/")[2] or source
    started, ended = _time(fields.started, sight), _time(fields.ended, sight)
    severity, doubts = _severity(fields, sight)
    for places, instant in ((fields.started, started), (fields.ended, ended)):
        if instant is UNKNOWN and (text := _first(places, sight, _text)) and not _NO_TIME.match(text):
            doubts.append(f"the time {quoted(text)} at {_named(places)} cannot be read")
    shown = links((sight.read(place, _text), text) for text, place in fields.links.items())
    return Alert(
        source=source,
        fingerprint=fingerprint,
        status=status,
        event=CommonEvent(
            summary=_first(fields.summary, sight, _line) or f"{name} alert {one_line(fingerprint)}",
            source=_first(fields.source, sight, _line) or name,
            severity=severity,
            timestamp=started.text,
            component=_first(fields.component, sight, _line),
            group=_first(fields.group, sight, _line),
            class_=_first(fields.class_, sight, _line),
            custom_details=_details(fields, sight),
        ),
        episode=_first(fields.episode, sight, _key) or started.text,
        episode_at=started.ms,
        ended_at=ended.ms if status is Status.RESOLVED else 0,
        links=shown,
        client=name,
        client_url=shown[0].href if shown else "",
        raw=raw if isinstance(raw, dict) else {},
        notes=(*notes, *doubts),
    )


def _identify(places: Places, sight: _Sight) -> str:
    """The parts joined by colons, which are escaped within them; "" where one is missing."""
    parts = [sight.read(place, _shared_part if place.is_shared else _part) for place in places]
    if not all(parts):
        return ""
    if len(parts) == 1:
        return parts[0]
    return ":".join(values.escaped(part) for part in parts)


def _unknown_status(fields: Fields, said: str) -> str:
    if not said:
        return f"there is no status at {_named(fields.status)}"
    return f"the status {quoted(said)} at {_named(fields.status)} is none of {_cut(', '.join(fields.known))}"


def _severity(fields: Fields, sight: _Sight) -> tuple[Severity, list[str]]:
    """The severity, and what is doubtful about it."""
    said = _first(fields.severity, sight, _said)
    meant = said.casefold()
    if found := fields.severities.get(meant) or SEVERITIES.get(meant):
        return found, []
    default = fields.default_severity
    return default, [] if _is_absent(said) else [f"the severity {quoted(said)} is not known: taken for {default}"]


def _time(places: Places, sight: _Sight) -> Instant:
    text = _first(places, sight, _text)
    instant = read_epoch(text)
    return read_rfc3339(text) if instant is UNKNOWN else instant


def _details(fields: Fields, sight: _Sight) -> dict[str, Any]:
    if fields.details is None and not fields.labels:
        alert = sight.view["alert"]
        return dict(alert) if isinstance(alert, dict) else {}
    details: dict[str, Any] = {}
    for place in fields.labels:
        details |= _labels(place, sight)
    for name, place in (fields.details or {}).items():
        if (value := sight.read(place, _detail)) is not None:
            details[name] = value
    return details


def _labels(place: Place, sight: _Sight) -> dict[str, Any]:
    """The members of an object or of a list of names and values. Anything else keeps its own name."""
    members = sight.read(place, _members)
    if members is not None:
        return members
    value = sight.read(place, _detail)
    return {} if value is None else {str(place.keys[-1]): value}


def _members(value: Any) -> dict[str, Any] | None:
    """One more than are shown at most, so that whoever cuts them still sees that there are too many. None: there are none."""
    if isinstance(value, list) and all(isinstance(item, dict) and "value" in item for item in value):
        value = {name: item["value"] for item in value if (name := _first_name(item))}
    if not isinstance(value, dict):
        return None
    return value if len(value) <= DETAILS else dict(islice(value.items(), DETAILS + 1))


def _detail(value: Any) -> Any:
    """The value as it is; None where it stands for nothing."""
    return None if isinstance(value, str) and _is_absent(value) else value


def _first_name(label: Mapping[str, Any]) -> str:
    return next((text for name in _LABEL_NAMES if (text := _text(label.get(name)))), "")


def _narrowed(body: Any, keys: Sequence[str | int], alert: Any) -> Any:
    """The body with this alert alone in the list at `keys`; nothing else of it where it is None."""
    if not keys:
        return [alert]
    key, rest = keys[0], keys[1:]
    if isinstance(key, str):
        shared = body if isinstance(body, dict) else {}
        return {**shared, key: _narrowed(shared.get(key), rest, alert)}
    items = body if isinstance(body, list) else []
    inner = items[key] if key < len(items) else None
    return [*items[:key], _narrowed(inner, rest, alert), *items[key + 1 :]]


def _shared_size(fields: Fields, body: Any) -> int:
    """The bytes of what all alerts of a body share."""
    return len(msgspec.json.encode(_narrowed(body, fields.alerts.keys, None))) if fields.alerts else 0


def _shared_details_size(fields: Fields, body: Any) -> int:
    """The bytes of what all alerts of a body show of it."""
    view = {"alert": None, "raw_event": body}
    places = (*fields.labels, *(fields.details or {}).values())
    return sum(len(msgspec.json.encode(fit_value(place.find(view)))) for place in places if place.is_shared)


def _without_shared_details(fields: Fields) -> Fields:
    return replace(
        fields,
        labels=tuple(place for place in fields.labels if not place.is_shared),
        details={name: place for name, place in (fields.details or {}).items() if not place.is_shared},
    )


def _first(places: Places, sight: _Sight, read: Callable[[Any], str]) -> str:
    """The first text at the places; of a long one a character more than is shown, so that it still is cut with a mark."""
    for place in places:
        if text := sight.read(place, read):
            return text[: LIMITS.text + 1]
    return ""


def _line(value: Any) -> str:
    """Text for people, in one line, with HTML's entities resolved."""
    return one_line(unescaped(_text(value)))


def _part(value: Any) -> str:
    """A part of an identity; "" where it has a name in it that was not filled in."""
    text = _text(value)
    return "" if _PARTLY_UNFILLED.search(text) else text


def _shared_part(value: Any) -> str:
    """Hashed where it is too long, for each alert of a body has it."""
    return _key(_part(value))


def _key(value: Any) -> str:
    """Text that only tells alerts or episodes apart; hashed where it is too long."""
    text = _text(value)
    return text if len(text) <= LIMITS.text else hashed(text)


def _text(value: Any) -> str:
    """Texts and numbers; "" for anything else, and for what stands for nothing."""
    text = _plain(value)
    return "" if _is_absent(text) else text


def _said(value: Any) -> str:
    """A status or severity: text, number, true or false; "" for anything else."""
    return ("true" if value else "false") if isinstance(value, bool) else _plain(value)


def _plain(value: Any) -> str:
    return values.word(value).strip()


def _is_absent(text: str) -> bool:
    """Asked of every value of every alert, so first what costs least."""
    text = text.strip()
    if len(text) <= _LONGEST_NOTHING and text.casefold() in _NOTHING:
        return True
    return text[0] in _UNFILLED_BEGIN and _UNFILLED.fullmatch(text) is not None


def _named(places: Places, joint: str = " or ") -> str:
    return _cut(joint.join(f"`{place.path}`" for place in places))


def _cut(text: str) -> str:
    """Fit for a reason, which has a sender's text in it besides."""
    return text if len(text) <= _NAMED_LIMIT else text[: _NAMED_LIMIT - 1] + "…"
