"""The oracle: what was acknowledged against what PagerDuty was told, turned into a verdict. Pure; used by every run.

An episode is what one alert does from firing to its resolve. PagerDuty's `opened` is a page.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate

from alertrouter.alarms import OUR_OWN
from alertrouter.alert import Severity, Status
from alertrouter.record import REPAIR_AFTER_MS
from tests.rig.ledger import Heard
from tests.rig.pagerduty import Call, OpenAlert

#: How many examples of each finding are kept.
_EXAMPLES = 5
#: What a kill interrupts is taken up again after whatever came meanwhile: a restart, and 15 s for leases to fall.
_OUT_OF_TURN_MS = 30_000
#: A repair comes 90 s after the attempt that had no answer, and the send before it is one that had one, some retries later.
_RETRIES_MS = 45_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the run came to. Counts of episodes, sends or alerts; `lost` and those after it should be 0.

    accepted:      alerts in the ledger, repetitions included.
    episodes:      how often one of them began to fire.
    paged:         episodes that opened an alert at PagerDuty.
    resolved_before_delivery:  episodes that were over before it was their turn to be sent.
    repaired:      identical sends some 90 s after the one before: meant to be.
    lost:          episodes that never reached PagerDuty though they still fire, or outlived their turn and the grace.
    merged:        episodes that only added to a page still open from an earlier one: what came back must page again.
    wrong:         alerts of which PagerDuty's state at the end is not the last acknowledged one.
    duplicate:     identical sends beyond the first for the same news.
    false_pages:   pages without an episode behind them, after its resolve, or a second one for it.
    late:          episodes that reached PagerDuty later than allowed.
    out_of_order:  sends of what was heard before the thing sent last.
    unexplained:   episodes that ended without delivery and without a reason in the history; calls for alerts that
                   nobody sent.
    examples:      some of each, in words.
    """

    accepted: int = 0
    episodes: int = 0
    paged: int = 0
    resolved_before_delivery: int = 0
    repaired: int = 0
    lost: int = 0
    merged: int = 0
    wrong: int = 0
    duplicate: int = 0
    false_pages: int = 0
    late: int = 0
    out_of_order: int = 0
    unexplained: int = 0
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = [f"{name.name} {getattr(self, name.name):,}" for name in fields(self) if name.name != "examples"]
        shown = [f"  {kind}: {text}" for kind, texts in self.examples.items() for text in texts]
        return "\n".join([", ".join(counts), *shown])


def judge(
    ledger: Iterable[Heard],
    calls: Iterable[Call],
    open_at_end: Iterable[OpenAlert],
    history: Iterable[Mapping[str, str]] | None = None,
    *,
    grace_ms: int = 60_000,
    in_flight_ms: int = 2_000,
    late_ms: int | None = None,
    past_redis: bool = False,
) -> Verdict:
    """Compare. The run must be over: nothing waits to be sent any more.

    ledger:        per identity in the order they were heard.
    calls:         PagerDuty's log, in the order of processing.
    history:       alertrouter's, with at least `id`, `at` and `outcome`; None where it is not to be had.
    grace_ms:      an episode shorter than this may end before it is delivered. So may one that ended before its turn:
                   when what had come before it, of the same severity, was still being sent, but for what a kill puts
                   out of turn.
    in_flight_ms:  how long a send may be under way: what overtook it within this is nobody's fault.
    past_redis:    alerts may have gone straight to PagerDuty, where nobody knows of a resolve that waits in Redis: it comes
                   after the trigger that overtook it, and then that trigger again.
    late_ms:       an episode must have reached PagerDuty this long after it was acknowledged; None for no such rule.
    """
    heard: dict[str, list[Heard]] = defaultdict(list)
    accepted = 0
    for alert in ledger:
        accepted += 1
        heard[alert.dedup_key].append(alert)
    told: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.taken:
            told[call.dedup_key].append(call)
    open_keys = {alert.dedup_key for alert in open_at_end}
    ends = None if history is None else _ends(history)

    found = _Findings()
    turns = _Turns()
    unreached: list[tuple[Sequence[Heard], Sequence[Call], _Episode]] = []
    news: Sequence[Heard]
    sends: Sequence[Call]
    for dedup_key, alerts in heard.items():
        news = _news(alerts)
        sends = told.pop(dedup_key, [])
        _judge_end(found, news, sends, dedup_key in open_keys)
        unreached += (
            (news, sends, each)
            for each in _judge_episodes(found, turns, news, sends, in_flight_ms, late_ms, past_redis)
        )
        _judge_order(found, news, sends, past_redis)
    for news, sends, episode in unreached:
        _judge_unreached(found, turns, news, sends, ends, episode, grace_ms)
    for dedup_key, sends in told.items():
        if dedup_key.partition(":")[0] not in OUR_OWN:  # alarms about alertrouter itself, and digests
            found.add("unexplained", f"{len(sends)} calls for {dedup_key}, which nobody sent")
            found.add("false_pages", f"{dedup_key}: nobody sent it", sum(call.result == "opened" for call in sends))
    return Verdict(accepted=accepted, examples=dict(found.examples), **found.counts)


class _Findings:
    def __init__(self) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.examples: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, example: str = "", count: int = 1) -> None:
        self.counts[kind] += count
        if example and count and len(self.examples[kind]) < _EXAMPLES:
            self.examples[kind].append(example)


def _news(alerts: Sequence[Heard]) -> list[Heard]:
    """Without what only repeats the alert before it."""
    return [
        alert
        for at, alert in enumerate(alerts)
        if at == 0 or alert[1:4] != alerts[at - 1][1:4]  # status, episode, severity
    ]


def _judge_end(found: _Findings, news: Sequence[Heard], sends: Sequence[Call], is_open: bool) -> None:
    """PagerDuty's final state against what was heard last. A swallowed send counts as what it pretended to be."""
    last = news[-1]
    if sends and sends[-1].result == "swallowed":
        is_open = sends[-1].action != "resolve"
    if is_open != (last.status is Status.FIRING):
        found.add("wrong", f"{last.dedup_key} is {'open' if is_open else 'closed'}, heard {_words(news, sends)}")
        return
    severity = next((call.severity for call in reversed(sends) if call.action == "trigger"), "")
    if is_open and severity != last.severity:
        found.add("wrong", f"{last.dedup_key} was told {severity}, heard {_words(news, sends)}")


@dataclass(frozen=True, slots=True)
class _Episode:
    """The alert that began it and the one that ended it, if any did; the severities it had."""

    fired: Heard
    resolved: Heard | None
    severities: frozenset[Severity]


def _episodes(news: Sequence[Heard]) -> list[_Episode]:
    starts = [
        at
        for at, alert in enumerate(news)
        if alert.status is Status.FIRING and (at == 0 or news[at - 1].status is not Status.FIRING)
    ]
    found = []
    for start, end in zip(starts, [*starts[1:], len(news)], strict=True):
        part = news[start:end]
        resolved = next((alert for alert in part if alert.status is Status.RESOLVED), None)
        severities = frozenset(alert.severity for alert in part if alert.status is Status.FIRING)
        found.append(_Episode(news[start], resolved, severities))
    return found


class _Turns:
    """Whose turn it was when: of each severity, when the pages came and since when they had waited."""

    def __init__(self) -> None:
        self._pages: defaultdict[Severity, list[tuple[int, int]]] = defaultdict(list)
        self._oldest: dict[Severity, list[int]] = {}

    def add(self, severity: Severity, at: int, waited_since: int) -> None:
        self._pages[severity].append((at, waited_since))

    def still_before(self, severity: Severity, since: int, at: int) -> bool:
        """Whether something that had waited since `since` or longer came at `at` or later."""
        pages = self._pages[severity]
        if severity not in self._oldest:
            pages.sort()
            oldest = list(accumulate((waited for _, waited in reversed(pages)), min))
            self._oldest[severity] = oldest[::-1]
        first = bisect_left(pages, (at, 0))
        return first < len(pages) and self._oldest[severity][first] <= since


def _judge_episodes(
    found: _Findings,
    turns: _Turns,
    news: Sequence[Heard],
    sends: Sequence[Call],
    in_flight_ms: int,
    late_ms: int | None,
    past_redis: bool,
) -> list[_Episode]:
    """Which episodes reached PagerDuty, and which page had an episode behind it. Returns those that did not."""
    episodes = _episodes(news)
    unreached: list[_Episode] = []
    reached = _match([call for call in sends if call.result in ("opened", "swallowed")], episodes, in_flight_ms)
    found.counts["episodes"] += len(episodes)
    found.counts["paged"] += len(reached)
    for at, episode in enumerate(episodes):
        fired = episode.fired
        if at in reached:
            turns.add(fired.severity, reached[at].at, fired.acked)
            took_ms = reached[at].at - fired.acked
            if late_ms is not None and took_ms > late_ms:
                found.add("late", f"{fired.dedup_key}: {took_ms} ms after it was acknowledged")
        elif any(_adds_to(call, episode) for call in sends):
            found.add("merged", f"{fired.dedup_key}, firing from {fired.posted}; heard {_words(news, sends)}")
        else:
            unreached.append(episode)

    # what PagerDuty processed late, and what that made necessary, is its own doing
    pages = [
        call
        for at, call in enumerate(sends)
        if call.result == "opened"
        and "late" not in (call.fault, sends[max(at - 1, 0)].fault)
        and not (past_redis and _was_crossed(sends[at + 1 : at + 2], news))
    ]
    meant = {page.number for page in _match(pages, episodes, in_flight_ms).values()}
    for page in pages:
        if page.number not in meant:
            found.add("false_pages", f"{page.dedup_key} at {page.at}; heard {_words(news, sends)}")
    return unreached


def _judge_unreached(
    found: _Findings,
    turns: _Turns,
    news: Sequence[Heard],
    sends: Sequence[Call],
    ends: Mapping[str, int] | None,
    episode: _Episode,
    grace_ms: int,
) -> None:
    """Whether what never reached PagerDuty was over before it could."""
    fired, resolved = episode.fired, episode.resolved
    if resolved is None or not (
        resolved.posted - fired.acked <= grace_ms
        or any(
            turns.still_before(severity, fired.acked + _OUT_OF_TURN_MS, resolved.posted - _OUT_OF_TURN_MS)
            for severity in episode.severities
        )
    ):
        found.add("lost", f"{fired.dedup_key}, firing from {fired.posted}; heard {_words(news, sends)}")
        return
    found.counts["resolved_before_delivery"] += 1
    if ends is not None and ends.get(fired.dedup_key, 0) < resolved.posted:
        found.add("unexplained", f"{fired.dedup_key}: nothing in the history since {resolved.posted}")


def _match(pages: Sequence[Call], episodes: Sequence[_Episode], in_flight_ms: int) -> dict[int, Call]:
    """The page of each episode by the episode's index: the newest of both first, as many as can be.

    A page fits an episode that had been posted by then, and was not over, or only just.
    """
    matched: dict[int, Call] = {}
    at = len(episodes) - 1
    for page in reversed(pages):
        fit = at
        while fit >= 0 and episodes[fit].fired.posted > page.at:
            fit -= 1
        if fit < 0:
            continue
        resolved = episodes[fit].resolved
        if resolved is None or resolved.acked + in_flight_ms >= page.at:
            matched[fit] = page
            at = fit - 1
    return matched


def _was_crossed(following: Sequence[Call], news: Sequence[Heard]) -> bool:
    """Whether a resolve that had waited in Redis closed the page at once, although the alert fired: it was opened again."""
    if not following or following[0].result != "resolved":
        return False
    known = [alert for alert in news if alert.posted <= following[0].at]
    return bool(known) and known[-1].status is Status.FIRING


def _adds_to(call: Call, episode: _Episode) -> bool:
    resolved = episode.resolved
    in_time = episode.fired.posted <= call.at and (resolved is None or call.at <= resolved.acked)
    return call.result == "updated" and in_time


def _judge_order(found: _Findings, news: Sequence[Heard], sends: Sequence[Call], past_redis: bool) -> None:
    """Each send is for some news, never for older news than the send before it; only news makes it no repetition."""
    at, closed, before = 0, 0, None
    for call in sends:
        if call.fault == "late":
            continue
        fits = [n for n in range(at, len(news)) if _is_for(call, news[n])]
        if not fits and past_redis and call.result in ("resolved", "updated"):
            # what was sent past Redis and what waited in it may cross: a page is closed and opened once more, or shows
            # its former severity, until the repair
            fits = [n for n in range(closed, at) if _is_for(call, news[n])][-1:]
        if not fits:
            found.add("out_of_order", f"{call.action} {call.dedup_key} at {call.at}; heard {_words(news, sends)}")
            before = None
            continue
        if before is not None and (call.action, call.severity) == (before.action, before.severity):
            # identical: news of the same kind may stand behind it if some came since
            since = [n for n in fits if n > at and news[n].acked >= before.at]
            if since:
                at = since[0]
            elif call.at - before.at >= REPAIR_AFTER_MS - _RETRIES_MS:
                found.counts["repaired"] += 1
            else:
                found.add("duplicate", f"{call.action} {call.dedup_key} at {before.at} and {call.at}")
        else:
            at = fits[0]
        if call.result == "resolved":
            closed = at + 1
        before = call


def _is_for(call: Call, heard: Heard) -> bool:
    if heard.posted > call.at:
        return False
    if call.action == "resolve":
        return heard.status is Status.RESOLVED
    return heard.status is Status.FIRING and call.severity == heard.severity


def _ends(history: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """When each alert last came to an end that is none of delivery, by the history."""
    ends: dict[str, int] = {}
    for entry in history:
        ends[entry["id"]] = max(ends.get(entry["id"], 0), int(entry["at"]))
    return ends


def _words(news: Sequence[Heard], sends: Sequence[Call]) -> str:
    """The last of both sides, for people."""
    heard = " ".join(f"{alert.status.value}/{alert.severity.value}@{alert.posted}-{alert.acked}" for alert in news[-7:])
    told = " ".join(f"{call.action}/{call.result}@{call.at}" for call in sends[-8:])
    return f"{heard} | told {told}"
