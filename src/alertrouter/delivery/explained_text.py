"""An explanation as text for somebody who was just woken: first what happened and why, then how it came to that. Pure.

What is told here is the JSON of `explaining`, whether it was made in this process or came from a running service.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from shlex import quote
from typing import Any

import msgspec

from alertrouter.rules.model import RuleTrace
from alertrouter.rules.tracing import traced
from alertrouter.shown import escaped as escaped
from alertrouter.shown import no_command

Told = Mapping[str, Any]

#: How much of one text is worth reading, in characters, and of one event in lines; `-o json` has all of it.
_SHOWN = 300
_SHOWN_WHY = 1_000
_SHOWN_LINES = 60
#: From then on a moment is told by its date alone.
_LONG_AGO_MS = 100 * 24 * 3600 * 1000
_UNITS = ((24 * 3600, "d"), (3600, "h"), (60, "min"), (1, "s"))
_KEPT = {"suppressed": "suppresses", "dropped": "drops"}


def as_text(explained: Mapping[str, Any]) -> Iterator[str]:
    """The lines, the first of which is the answer. They may hold anything that a sender wrote: see `escaped`."""
    yield headline(explained)
    yield ""
    yield f"  {explained['dedup_key']}: {explained['status']}, {explained['severity_heard']}"
    yield f"  {no_command(_cut(explained['summary']))}"
    yield from _owner(explained)
    yield from _by_rules(explained)
    if "record" in explained:
        yield ""
        yield from _heard(explained)
        yield from _told(explained)
        yield from _history(explained)
    yield ""
    yield "  Rules in force now" if "record" in explained else "  Rules"
    trace = msgspec.convert(explained["trace"], list[RuleTrace])
    for line in traced(trace):
        yield f"    {_cut(line, _SHOWN_WHY)}"
    if not trace:
        yield "    none was asked"
    if explained["event"] is not None:
        yield ""
        yield "  PagerDuty would get:"
        yield from _event(explained["event"])


def headline(explained: Mapping[str, Any]) -> str:
    """What happened, or would happen, and why, in one sentence."""
    sentence = _happened(explained) if "record" in explained else _would_happen(explained)
    return f"{sentence}."


# --- what would happen -----------------------------------------------------------------------------------------------


def _would_happen(explained: Mapping[str, Any]) -> str:
    outcome, places = explained["outcome"], ", ".join(explained["destinations"])
    if outcome in _KEPT:
        return f"Nobody would be told: {_kept_by(explained, outcome)}"
    if outcome == "suspended":
        wait = span(explained["suspend_ms"])
        return f"Would be held back for {wait}, then go to {places} {_as(explained)} unless resolved by then, {_because(explained)}"
    match explained["event_action"]:
        case "resolve":
            return f"Would be resolved at {places}, {_because(explained)}"
        case "acknowledge":
            return f"Would be acknowledged at {places}, {_because(explained)}"
    return f"Would go to {places} {_as(explained)}, {_because(explained)}"


def _kept_by(explained: Mapping[str, Any], outcome: str) -> str:
    if explained["rule"].startswith("silence:"):
        return f"it is silenced ({_cut(explained['reason'])})"
    return f"rule {explained['rule']} {_KEPT[outcome]} it ({_cut(explained['reason'])})"


def _as(explained: Mapping[str, Any]) -> str:
    grade = " ".join(filter(None, (explained["severity"], explained["priority"])))
    heard = explained["severity_heard"]
    return f"as {grade}" + (f" (heard as {heard})" if heard != explained["severity"] else "")


def _because(explained: Mapping[str, Any]) -> str:
    """Why it goes to its service."""
    if explained["quarantined"]:
        return f"because the file of {explained['quarantined']} is faulty and the catch-all takes its alerts"
    router = [each["rule"] for each in explained["trace"] if each["orchestration"] == "router" and each["matched"]]
    if not router:
        return "because alerts of this kind are not judged by rules"
    if not explained["service"]:
        return "because no rule of the router wanted it"
    if router[-1] == "catch_all":
        return f"because no rule of the router matched, and its catch-all names {explained['service']}"
    return f"because rule {router[-1]} of the router gives it to {explained['service']}"


# --- what happened ---------------------------------------------------------------------------------------------------


def _happened(explained: Mapping[str, Any]) -> str:
    record, now = explained["record"], explained["judged_now"]["at"]
    spoken_to = [told for told in explained["told"] if told["state"] != "nothing"]
    match explained["outcome"]:
        case "pending":
            return _on_its_way(explained)
        case "suspended":
            return (
                f"Held back by the rules until {_moment(record['suspended_until'], now)}: "
                "nobody is told before, and nobody at all if it is resolved by then"
            )
        case "suppressed" | "dropped" as outcome:
            was_open = [told["destination"] for told in explained["told"] if told["may_be_open"]]
            kept = _kept_by({**explained, "rule": record["rule"], "reason": record["reason"]}, outcome)
            if was_open:
                return f"Not told anew: {kept}; {', '.join(was_open)} still has it open from before"
            return f"Nobody was told: {kept}"
        case "dead_lettered":
            return f"NOT DELIVERED: {'; '.join(_refusals(explained)) or 'it was refused'}; it is kept as a dead letter"
        case "cancelled_in_suspend":
            return "Nobody was told: it was resolved while the rules held it back"
        case "resolved_before_delivery":
            return "Nobody was told: it was resolved before it could be sent"
        case "delivered" if spoken_to:
            return _delivered(explained, spoken_to)
    return f"Nothing is left to do: {explained['outcome'].replace('_', ' ')}"


def _delivered(explained: Mapping[str, Any], spoken_to: Sequence[Told]) -> str:
    now = explained["judged_now"]["at"]
    places = ", ".join(told["destination"] for told in spoken_to)
    when = _moment(max(told["at"] for told in spoken_to), now)
    if explained["status"] == "resolved":
        why = f", {explained['record']['reason']}" if explained["record"]["news"] == "silent" else ""
        return f"Resolved at {places} on {when}{why}"
    if explained["status"] == "acknowledged":
        return f"Acknowledged, and {places} knows since {when}"
    record = explained["record"]
    if record["service"] != explained["service"]:
        return f"Sent to {places} on {when}, for {record['service'] or 'no service'}"
    return f"Sent to {places} on {when} {_as(explained)}, {_because(explained)}"


def _on_its_way(explained: Mapping[str, Any]) -> str:
    record, now = explained["record"], explained["judged_now"]["at"]
    for told in explained["told"]:
        if told["lease_until"] > now:
            return f"Being sent to {told['destination']} at this moment"
    for told in explained["told"]:
        if told["tries"] and told["not_before"] > now:
            answer = _last_answer(explained, told["destination"])
            return (
                f"NOT DELIVERED YET: {told['destination']} failed {_times(told['tries'])}"
                f"{f' ({answer})' if answer else ''}, next try {_moment(told['not_before'], now)}"
            )
    for waiting in record["waiting"]:
        before = waiting["before"]
        others = f"{before} other{'s' * (before > 1)} before it" if before else "it is next"
        return f"Not sent yet: it waits for its turn at {waiting['destination']}, {others}{_paused(waiting, now)}"
    if _flaps_until(record) > now and explained["status"] == "resolved":
        return (
            f"Over, and its resolve is held because it flaps ({record['flapping']['changes']}): "
            f"resolved {_moment(record['flapping']['until'], now)} unless it fires again"
        )
    if record["hold_until"] > now:
        return f"Held until {_moment(record['hold_until'], now)}: it may be a late copy of what is already resolved"
    return "Not judged yet: it waits for the worker"


def _paused(waiting: Mapping[str, Any], now: int) -> str:
    """Until when nothing goes by its routing key; "" where something may."""
    until = waiting.get("paused_until", 0)  # a service of an earlier version does not say
    return f"; nothing goes by its routing key until {_moment(until, now)}" if until > now else ""


def _flaps_until(record: Mapping[str, Any]) -> int:
    return int(record.get("flapping", {}).get("until", 0))  # a service of an earlier version does not say


def _last_answer(explained: Mapping[str, Any], destination: str) -> str:
    sent = (each for each in explained.get("history", ()) if each["kind"] == "sent")
    return next((_cut(each.get("reason", "")) for each in sent if each["destination"] == destination), "")


def _refusals(explained: Mapping[str, Any]) -> Iterator[str]:
    for told in explained["told"]:
        if told["dead"]:
            letter = told["dead_letter"] or {}
            status = f"HTTP {letter['status']}: " if "status" in letter else ""
            yield f"{told['destination']} refused it ({status}{_cut(str(letter.get('reason', 'no reason on record')))})"


# --- the paragraphs --------------------------------------------------------------------------------------------------


def _owner(explained: Mapping[str, Any]) -> Iterator[str]:
    if explained["service"]:
        yield f"  service: {explained['service']}" + (f", team: {explained['team']}" if explained["team"] else "")
    elif explained["outcome"] != "dropped":
        yield "  service: none"
    if explained["runbook"]:
        yield f"  runbook: {explained['runbook']}"


def _by_rules(explained: Mapping[str, Any]) -> Iterator[str]:
    """What rules say beside where it goes, and how that differs from what is on record."""
    if explained["event_action_by_rule"]:
        yield f"  taken as a {explained['event_action']}, because a rule says so"
    if explained["notify"]:
        yield f"  told as well: {', '.join(explained['notify'])}"
    if explained["automation"]:
        yield f"  automation: {', '.join(explained['automation'])}"
    if explained["until"]:
        now = explained["judged_now"]["at"] if "record" in explained else None
        yield f"  the rules may say otherwise from {_moment(explained['until'], now)} on"
    for note in explained["notes"]:
        yield f"  note: {_cut(note)}"
    record = explained.get("record")
    if record is None:
        if explained["outcome"] in _KEPT:
            yield "  What PagerDuty was told before is still resolved."
        return
    if record["poisoned"]:
        yield "  NOT READABLE: every worker that tried to handle this alert died of it; a stand-in is told in its place"
    changes = list(_changes(explained))
    if changes:
        yield f"  THE RULES ARE OTHERS NOW: {'; '.join(changes)}"


def _changes(explained: Mapping[str, Any]) -> Iterator[str]:
    """Where the rules in force now disagree with what is on record of an alert that is not over."""
    record, judged = explained["record"], explained["judged_now"]["outcome"]
    if record["outcome"] == "pending" or explained["status"] == "resolved":
        return
    kept_then, kept_now = record["outcome"] in _KEPT, judged in _KEPT
    if kept_now and not (kept_then and record["rule"] == explained["rule"]):
        yield f"by them {_kept_by(explained, judged)}"
    elif kept_then and not kept_now:
        yield f"by them it goes to {', '.join(explained['destinations'])}"
    if judged != "dropped" and record["outcome"] != "dropped" and record["service"] != explained["service"]:
        yield f"it was judged for {record['service'] or 'no service'}, and is {explained['service'] or 'nobody'}'s now"


def _heard(explained: Mapping[str, Any]) -> Iterator[str]:
    record, now = explained["record"], explained["judged_now"]["at"]
    yield f"  Heard {_times(record['count'])}"
    yield f"    first {_moment(record['first_heard'], now)}, last {_moment(record['last_heard'], now)}"
    yield f"    last news: {_NEWS.get(record['news'], record['news'])} (version {record['version']})"
    yield f"    {_window(explained)}"
    if record["suspended_until"] > now:
        yield f"    suspended until {_moment(record['suspended_until'], now)}"
    elif record["suspended_until"]:
        yield f"    was suspended until {_moment(record['suspended_until'], now)}"
    if _flaps_until(record) > now:
        yield f"    flaps: {record['flapping']['changes']}; until {_moment(record['flapping']['until'], now)}"
    if record.get("auto_resolve_at"):
        yield f"    resolved by alertrouter if its sender does not repeat it before {_moment(record['auto_resolve_at'], now)}"
    if record.get("sender_silent"):
        yield "    not repeated for long; kept open, because nothing at all was heard of its sender for an hour"
    if record["due_at"]:
        yield f"    judged again {_moment(record['due_at'], now)}"


_NEWS = {
    "new": "it fires, and did not before",
    "episode": "it started anew",
    "severity": "its severity changed",
    "content": "its text changed",
    "status": "its status changed",
    "refresh": "unchanged, after the dedup window or the time to send again",
    "again": "unchanged, and what was heard before did not get through",
    "silent": "none: its sender ceased to repeat it, and alertrouter resolved it",
}


def _window(explained: Mapping[str, Any]) -> str:
    """What hearing it again would do."""
    record, now = explained["record"], explained["judged_now"]["at"]
    if record["news"] == "silent":
        return "firing again it is a new alert and pages; resolved again it is a duplicate"
    if record["status"] == "resolved":
        return "firing again it is a new alert; resolved again it is a duplicate"
    if record["outcome"] == "pending":
        return "heard again unchanged it is a duplicate while it is on its way"
    if record["outcome"] != "delivered":
        return "heard again it is no duplicate, but judged afresh: it did not get through"
    if record["status"] == "acknowledged":
        return "heard again unchanged it is a duplicate: somebody has it in hand"
    if record["duplicate_until"] > now:
        return f"heard again unchanged it is a duplicate until {_moment(record['duplicate_until'], now)}"
    return f"heard again it is forwarded: the dedup window ended {_moment(record['duplicate_until'], now)}"


def _told(explained: Mapping[str, Any]) -> Iterator[str]:
    now = explained["judged_now"]["at"]
    yield ""
    yield "  Told"
    for told in explained["told"]:
        if told["state"] == "nothing":
            yield f"    {told['destination']}: nothing so far"
        else:
            yield f"    {told['destination']}: {told['state']}, {_moment(told['at'], now)} (version {told['version']})"
        yield from (f"      {line}" for line in _under_way(told, now))
        if told["dedup_key"] != explained["record"]["id"]:
            yield f"      under the key {told['dedup_key']}, which it shares with others"
    for waiting in explained["record"]["waiting"]:
        place = f"{waiting['before']} of {waiting['length']} before it"
        yield f"    {waiting['destination']}: waits for its turn, {place}{_paused(waiting, now)}"
    if not explained["told"] and not explained["record"]["waiting"]:
        yield "    nobody"


def _under_way(told: Told, now: int) -> Iterator[str]:
    if told["lease_until"] > now:
        yield f"a send is in flight; if its worker dies, another takes over {_moment(told['lease_until'], now)}"
    if told["tries"]:
        again = (
            f"not tried again before {_moment(told['not_before'], now)}" if told["not_before"] else "tried in its turn"
        )
        yield f"failed {_times(told['tries'])}, {again}"
    if told["repair_at"]:
        yield f"one try got no answer; the state is sent once more {_moment(told['repair_at'], now)}"
    if told["dead"]:
        letter = told["dead_letter"] or {}
        said = f"{letter.get('action', '')} {letter.get('status', '')} {letter.get('reason', '')}".strip()
        yield f"DEAD LETTER (version {told['dead']}): {_cut(' '.join(said.split()) or 'no longer kept')}"
        if "letter" in letter:
            yield f"  once that is mended: alertrouter dead-letters redrive {letter['letter']}"
    if told["rerouted"]:
        yield "by another routing key: its own was refused"
    if told["refusal"]:
        yield f"it said: {_cut(told['refusal'])}"


def _history(explained: Mapping[str, Any]) -> Iterator[str]:
    entries, is_whole = explained["history"], explained["history_complete"]
    yield ""
    yield "  History" + (": none on record" if is_whole and not entries else "")
    if not is_whole:
        yield f"    (what came before: alertrouter history --since 30d --alert {quote(explained['record']['id'])})"
    for entry in reversed(entries):
        yield f"    {_utc(entry['at'])}  {'  '.join(filter(None, _words(entry)))}"


def _words(entry: Mapping[str, Any]) -> Iterator[str]:
    match entry["kind"]:
        case "heard":
            yield f"heard {entry.get('status', '')} {entry.get('severity', '')}".rstrip()
            yield f"({entry['news']})" if entry.get("news") else ""
        case "duplicate":
            yield f"heard {entry['status']} again"
        case "sent":
            yield f"sent to {entry['destination']}: {_RESULTS.get(entry['result'], entry['result'])}"
            yield entry.get("state", "")
        case "letter":
            yield f"dead letter {entry['result']}"
        case "shadow":
            yield "shadow rules differ"
            yield ", ".join(
                f"{name} {live or 'none'} → {shadow or 'none'}" for name, (live, shadow) in entry["differences"].items()
            )
    if outcome := entry.get("outcome"):
        yield f"→ {outcome.replace('_', ' ')}"
    if entry["kind"] == "ended" and entry.get("rule"):
        yield f"by {entry['rule']}"
    yield _cut(entry.get("reason", ""))


_RESULTS = {
    "delivered": "taken",
    "again": "failed, to be tried again",
    "changed": "refused, to be sent in another form",
    "refused": "refused, kept as a dead letter",
    "unsure": "no answer",
}


def _event(event: Mapping[str, Any]) -> Iterator[str]:
    lines = json.dumps(event, indent=2, ensure_ascii=False).split("\n")
    for line in lines[:_SHOWN_LINES]:
        yield f"    {_cut(line)}"
    if len(lines) > _SHOWN_LINES:
        yield f"    … {len(lines) - _SHOWN_LINES} more lines; -o json shows them"


# --- words -----------------------------------------------------------------------------------------------------------


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _cut(text: str, size: int = _SHOWN) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def _utc(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _moment(ms: int, now: int | None) -> str:
    """A time in UTC, with how far from now it is where that is known and telling."""
    if now is None or abs(ms - now) > _LONG_AGO_MS:
        return f"{_utc(ms)} UTC"
    ago = f"{span(now - ms)} ago" if ms <= now else f"in {span(ms - now)}"
    return f"{_utc(ms)} UTC ({ago})"


def span(ms: int) -> str:
    """How long that is, in its two largest units."""
    seconds = max(round(ms / 1000), 0)
    parts = []
    for size, unit in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"
