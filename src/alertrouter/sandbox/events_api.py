"""What PagerDuty's Events API v2 does with an event, in memory. No network here; time is an argument.

Written from the public contract (https://github.com/PagerDuty/developer-docs, folder docs/events-API-v2) and apart from
our own client, so that the two can disagree. Where the wording of an error is not published, the words are ours.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

import msgspec

#: "512 KB", read the strict way.
BODY_LIMIT = 512_000
#: What is remembered: calls, their bytes, and open alerts. The oldest go first.
CALLS_KEPT = 10_000
BYTES_KEPT = 64_000_000
ALERTS_KEPT = 100_000
#: PagerDuty counts calls per routing key over a sliding minute.
WINDOW_MS = 60_000

ACTIONS = ("trigger", "acknowledge", "resolve")
SEVERITIES = ("critical", "warning", "error", "info")


class Result(StrEnum):
    """What became of a call. The first five were accepted with 202; of a dropped one PagerDuty's sender never knows."""

    OPENED = "opened"
    UPDATED = "updated"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    DROPPED = "dropped"
    REFUSED = "refused"
    THROTTLED = "throttled"
    FAILED = "failed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was answered.

    received_at:  ms since the epoch.
    event:        the body, with the dedup_key that was made for it where it had none; empty where it was no JSON object.
    answer:       the body of the answer.
    title:        the summary of the alert it opened, changed or closed; "" where there is none.
    size:         bytes of the body.
    """

    received_at: int
    result: Result
    status: int
    event: Mapping[str, Any]
    answer: Mapping[str, Any]
    title: str
    size: int

    @property
    def routing_key(self) -> str:
        """The key it was sent with, in full."""
        return str(self.event.get("routing_key", ""))

    @property
    def key_alias(self) -> str:
        """The key as people are shown it."""
        return alias(self.routing_key)


@dataclass(slots=True)
class OpenAlert:
    """An alert that was triggered and not yet resolved. Times in ms since the epoch."""

    routing_key: str
    dedup_key: str
    status: str  # "triggered" or "acknowledged"
    summary: str
    severity: str
    opened_at: int
    updated_at: int
    triggers: int


class EventsApi:
    """Every alert's state and the latest calls. `calls_per_minute` is the limit per routing key; 0 means none."""

    def __init__(self, calls_per_minute: int = 0) -> None:
        self.calls: deque[Call] = deque()
        self.changes: deque[Mapping[str, Any]] = deque(maxlen=CALLS_KEPT)
        self.alerts: dict[tuple[str, str], OpenAlert] = {}
        self.totals: dict[Result, int] = dict.fromkeys(Result, 0)
        self._calls_per_minute = calls_per_minute
        self._recent: defaultdict[str, deque[int]] = defaultdict(deque)
        self._bytes = 0

    def enqueue(self, body: bytes, now: int) -> Call:
        """Take one body as `POST /v2/enqueue` does: judged, applied, remembered."""
        event = read(body)
        if len(body) > BODY_LIMIT:
            return self._refuse(event, len(body), now, ["Event size exceeds 512 KB"])
        if event is None:
            return self.record(
                Call(now, Result.REFUSED, 400, {}, _error("Unrecognized object", "JSON parse error"), "", len(body))
            )
        if errors := problems(event):
            return self._refuse(event, len(body), now, errors)
        if self._is_over_limit(event["routing_key"], now):
            answer = _error("throttle exceeded", "Request Limit Exceeded")
            return self.record(Call(now, Result.THROTTLED, 429, event, answer, "", len(body)))
        event.setdefault("dedup_key", uuid4().hex)
        result, title = self._apply(event, now)
        answer = {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}
        return self.record(Call(now, result, 202, event, answer, title, len(body)))

    def change(self, body: bytes, now: int) -> Call:
        """Take one body as `POST /v2/change/enqueue` does. What is taken is in `changes`, not among the calls."""
        event = read(body)
        payload = (event or {}).get("payload")
        summary = payload.get("summary") if isinstance(payload, dict) else None
        errors = [
            *_key_problems((event or {}).get("routing_key")),
            *(["'payload.summary' is missing or blank"] if _is_blank(summary) else ()),
        ]
        if event is None or errors or len(body) > BODY_LIMIT:
            return self._refuse(event, len(body), now, errors or ["Event size exceeds 512 KB"])
        self.changes.append(event)
        self.totals[Result.CHANGED] += 1
        answer = {"status": "success", "message": "Change event processed"}
        return Call(now, Result.CHANGED, 202, event, answer, "", len(body))

    def record(self, call: Call) -> Call:
        """Remember a call, and forget the oldest beyond the bounds."""
        self.calls.append(call)
        self.totals[call.result] += 1
        self._bytes += call.size
        while len(self.calls) > CALLS_KEPT or self._bytes > BYTES_KEPT:
            self._bytes -= self.calls.popleft().size
        return call

    def forget_calls(self) -> None:
        """Start the list of calls and the totals afresh. Alerts stay as they are, so what is open can still be resolved."""
        self.calls.clear()
        self.totals = dict.fromkeys(Result, 0)
        self._bytes = 0

    def _refuse(self, event: Mapping[str, Any] | None, size: int, now: int, errors: list[str]) -> Call:
        answer = {**_error("invalid event", "Event object is invalid"), "errors": errors}
        return self.record(Call(now, Result.REFUSED, 400, event or {}, answer, "", size))

    def _is_over_limit(self, routing_key: str, now: int) -> bool:
        """Whether this call is one too many; one that is not is counted."""
        if not self._calls_per_minute:
            return False
        recent = self._recent[routing_key]
        while recent and recent[0] <= now - WINDOW_MS:
            recent.popleft()
        if len(recent) >= self._calls_per_minute:
            return True
        recent.append(now)
        return False

    def _apply(self, event: Mapping[str, Any], now: int) -> tuple[Result, str]:
        """Change the alert named by routing key and dedup_key. Returns what became of the event, and the alert's title."""
        key = (event["routing_key"], event["dedup_key"])
        alert = self.alerts.get(key)
        if event["event_action"] == "trigger":
            if alert is not None:
                alert.updated_at = now
                alert.triggers += 1
                return Result.UPDATED, alert.summary
            payload = event["payload"]
            self.alerts[key] = OpenAlert(*key, "triggered", payload["summary"], payload["severity"], now, now, 1)
            if len(self.alerts) > ALERTS_KEPT:
                del self.alerts[next(iter(self.alerts))]
            return Result.OPENED, payload["summary"]
        if alert is None:
            return Result.DROPPED, ""
        if event["event_action"] == "resolve":
            del self.alerts[key]
            return Result.RESOLVED, alert.summary
        alert.status = "acknowledged"
        alert.updated_at = now
        return Result.ACKNOWLEDGED, alert.summary


def alias(routing_key: str) -> str:
    """The key's last four characters: enough to tell keys apart, not to use one."""
    return f"…{routing_key[-4:]}"


def read(body: bytes) -> dict[str, Any] | None:
    """The body as a JSON object; None where it is none."""
    try:
        event = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def problems(event: Mapping[str, Any]) -> list[str]:
    """Everything that makes PagerDuty answer 400, all at once; empty for an event it takes."""
    return [
        *_key_problems(event.get("routing_key")),
        *_choice_problems("event_action", event.get("event_action"), ACTIONS),
        *_dedup_key_problems(event),
        *(_trigger_problems(event) if event.get("event_action") == "trigger" else ()),
    ]


def _key_problems(key: Any) -> list[str]:
    if _is_blank(key):
        return ["'routing_key' is missing or blank"]
    errors = []
    if len(key) != 32:
        errors.append("Length of 'routing_key' is incorrect (should be 32 characters)")
    if not (key.isascii() and key.isalnum()):
        errors.append("'routing_key' cannot contain non-alphanumeric characters.")
    return errors


def _dedup_key_problems(event: Mapping[str, Any]) -> list[str]:
    if "dedup_key" not in event and event.get("event_action") == "trigger":
        return []
    key = event.get("dedup_key")
    if _is_blank(key):
        return ["'dedup_key' is missing or blank"]
    return _length_problems("dedup_key", key, 255)


def _trigger_problems(event: Mapping[str, Any]) -> list[str]:
    payload = event.get("payload")
    if not isinstance(payload, dict):
        return ["'payload' is missing or blank"]
    errors = [f"'payload.{name}' is missing or blank" for name in ("summary", "source") if _is_blank(payload.get(name))]
    errors += _choice_problems("payload.severity", payload.get("severity"), SEVERITIES)
    errors += _length_problems("payload.summary", payload.get("summary"), 1_024)
    errors += [
        f"'payload.{name}' is not a string"
        for name in ("component", "group", "class")
        if not isinstance(payload.get(name, ""), str)
    ]
    if "timestamp" in payload and not _is_instant(payload["timestamp"]):
        errors.append("'payload.timestamp' is not in ISO 8601 format")
    if not isinstance(payload.get("custom_details", {}), dict):
        errors.append("'payload.custom_details' is not an object")
    if not _are_all(event.get("links", []), "href", ("https://", "http://")):
        errors.append("'links' is not an array of objects with an 'href'")
    if not _are_all(event.get("images", []), "src", ("https://",)):
        errors.append("'images' is not an array of objects with an HTTPS 'src'")
    errors += [
        f"'{name}' is not a string" for name in ("client", "client_url") if not isinstance(event.get(name, ""), str)
    ]
    return errors


def _choice_problems(name: str, value: Any, choices: tuple[str, ...]) -> list[str]:
    if _is_blank(value):
        return [f"'{name}' is missing or blank"]
    if value not in choices:
        *first, last = (f"'{choice}'" for choice in choices)
        return [f"'{name}' is invalid (must be one of the following: {', '.join(first)} or {last})"]
    return []


def _length_problems(name: str, value: Any, limit: int) -> list[str]:
    if isinstance(value, str) and len(value) > limit:
        return [f"'{name}' is too long (maximum is {limit} characters)"]
    return []


def _is_blank(value: Any) -> bool:
    return not isinstance(value, str) or not value.strip()


def _is_instant(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value) is not None
    except ValueError:
        return False


def _are_all(items: Any, member: str, beginnings: tuple[str, ...]) -> bool:
    return isinstance(items, list) and all(
        isinstance(item, dict) and str(item.get(member, "")).startswith(beginnings) for item in items
    )


def _error(status: str, message: str) -> dict[str, Any]:
    return {"status": status, "message": message}
