"""What a replay found, in words: for a terminal, for a pull request, for a program. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from alertrouter.record import Outcome
from alertrouter.shown import escaped, in_code, in_markdown
from alertrouter.simulation.replay import Change, Course, Difference, Kind

#: Rows of a table; what is left out is counted.
_ROWS = 30
#: A comment on a pull request holds 65,536 characters.
_LOST_SHOWN = 200
_SUMMARY = 90

#: How much of something there is, by the name that `--fail-on` has for it. Those of a percentage are None here.
FAILURES: Mapping[str, Callable[[Difference], int] | None] = {
    "lost-critical": lambda found: len(found.lost_critical),
    "downgraded-critical": lambda found: found.downgraded_critical,
    "new-unrouted": lambda found: found.new_unrouted,
    "moved": lambda found: found.counts[Kind.MOVED],
    "suppressed": lambda found: found.suppressed,
    "unsuppressed": lambda found: found.unsuppressed,
    "any": lambda found: sum(found.counts.values()),
    "more-pages": None,
    "fewer-pages": None,
}
_FAILURE = re.compile(r"([a-z-]+)(?:=(\d+(?:\.\d+)?)%?)?")


def failure(word: str) -> tuple[str, float]:
    """One word of `--fail-on`: what to fail on, and from how many percent on. Raises ValueError."""
    matched = _FAILURE.fullmatch(word.strip())
    name, percent = (matched[1], matched[2]) if matched else (word, None)
    if name not in FAILURES or (percent is not None and FAILURES[name] is not None):
        raise ValueError(
            f"{word!r} is none of {', '.join(FAILURES)}; more-pages=10% and fewer-pages=10% take a percentage"
        )
    return name, float(percent or 0)


def failures(found: Difference, wanted: Iterable[tuple[str, float]]) -> list[str]:
    """What of `wanted` there is, in words."""
    failed = []
    for name, percent in wanted:
        count = FAILURES[name]
        if count is not None:
            if number := count(found):
                failed.append(f"{name}: {number:,}")
            continue
        before, after = found.before.opened, found.after.opened
        change = after - before if name == "more-pages" else before - after
        if change > before * percent / 100:
            failed.append(
                f"{name}: {before:,} before, {after:,} after ({_percent(before, after)}), allowed {percent:g} %"
            )
    return failed


def as_json(found: Difference, names: tuple[str, str], damaged: int, failed: Sequence[str]) -> dict[str, Any]:
    """Everything, as plain data. Times are ms since the epoch."""
    return {
        "before": names[0],
        "after": names[1],
        "heard": found.heard,
        "duplicates": found.duplicates,
        "unknown_duplicates": found.unknown,
        "damaged_lines": damaged,
        "first_at": found.first_at,
        "last_at": found.last_at,
        "episodes": found.episodes,
        "sides": {
            name: {
                "incidents_opened": side.opened,
                "events_sent": side.events,
                "events_refused": side.refused,
                "episodes_by_outcome": dict(side.outcomes),
                "paged_by_service": dict(side.paged),
                "paged_by_severity": dict(side.severities),
                "matched_by_rule": dict(side.matched),
            }
            for name, side in (("before", found.before), ("after", found.after))
        },
        "changes": {kind.value: found.counts[kind] for kind in Kind},
        "suppressed": found.suppressed,
        "unsuppressed": found.unsuppressed,
        "new_unrouted": found.new_unrouted,
        "downgraded_critical": found.downgraded_critical,
        "paged_later": found.later,
        "paged_earlier": found.earlier,
        "lost_critical": [_change_as_json(each) for each in found.lost_critical],
        "by_service": _nested(found.by_service),
        "by_rule": _nested(found.by_rule),
        "moves": [
            {"field": name, "before": before, "after": after, "episodes": count}
            for (name, before, after), count in found.moves.most_common()
        ],
        "examples": {kind.value: [_change_as_json(each) for each in found.changes[kind]] for kind in Kind},
        "failed": list(failed),
    }


def _nested(counts: Counter[tuple[str, Kind]]) -> dict[str, dict[str, int]]:
    return {name: {kind.value: counts[name, kind] for kind in Kind} for name in sorted({name for name, _ in counts})}


def _change_as_json(change: Change) -> dict[str, Any]:
    def side(course: Course) -> dict[str, Any]:
        return {
            "page": asdict(course.page) if course.page else None,
            "paged_at": course.paged_at or None,
            "outcome": course.outcome.value,
            "service": course.service,
            "rule": course.rule,
            "reason": course.reason,
            "matched": list(course.matched),
        }

    return {
        "dedup_key": change.id,
        "summary": change.summary,
        "at": change.at,
        "changed": list(change.fields),
        "rules": list(change.rules),
        "before": side(change.before),
        "after": side(change.after),
    }


def as_markdown(found: Difference, names: tuple[str, str], damaged: int, failed: Sequence[str]) -> str:
    """To be pasted in a pull request."""
    return "\n".join(_report(found, names, damaged, failed, _MarkdownPen()))


def as_text(found: Difference, names: tuple[str, str], damaged: int, failed: Sequence[str]) -> str:
    """For a terminal."""
    return "\n".join(_report(found, names, damaged, failed, _TextPen()))


class _MarkdownPen:
    """Writes headings and tables as GitHub and GitLab show them."""

    def heading(self, text: str) -> Iterator[str]:
        yield from ("", f"### {text}", "")

    def strong(self, text: str) -> str:
        return f"**{text}**"

    def code(self, text: str) -> str:
        return in_code(text)

    def cell(self, text: str) -> str:
        return in_markdown(text)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
        yield f"| {' | '.join(head)} |"
        yield "|" + "|".join("---:" if _is_number(rows, column) else "---" for column in range(len(head))) + "|"
        yield from (f"| {' | '.join(self.cell(cell) for cell in row)} |" for row in rows)


class _TextPen:
    """Writes the same in columns."""

    def heading(self, text: str) -> Iterator[str]:
        yield from ("", text, "")

    def strong(self, text: str) -> str:
        return text

    def code(self, text: str) -> str:
        return escaped(text)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
        rows = [[escaped(" ".join(cell.split())) for cell in row] for row in rows]
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
        right = [_is_number(rows, column) for column in range(len(head))]
        for row in (head, *rows):
            cells = (
                cell.rjust(width) if numeric else cell.ljust(width)
                for cell, width, numeric in zip(row, widths, right, strict=True)
            )
            yield "  " + "  ".join(cells).rstrip()


def _is_number(rows: Sequence[Sequence[str]], column: int) -> bool:
    return column > 0 and all(re.fullmatch(r"[-+\d,.% ()]*", row[column]) for row in rows)


def _report(
    found: Difference, names: tuple[str, str], damaged: int, failed: Sequence[str], pen: _MarkdownPen | _TextPen
) -> Iterator[str]:
    changed = sum(found.counts.values())
    before, after = (pen.code(name) for name in names)
    title = f"Replay of {found.heard:,} alerts: {after} against {before}"
    yield f"## {title}" if isinstance(pen, _MarkdownPen) else title
    yield ""
    yield (
        f"{found.heard:,} sightings in {found.episodes:,} episodes, {_moment(found.first_at)} to {_moment(found.last_at)} UTC. "
        + (f"{changed:,} episodes would go otherwise." if changed else "Nothing would change for anybody.")
    )
    yield from (f"{pen.strong('Fails')}: {each}" for each in failed)
    if found.unknown:
        yield f"{found.unknown:,} repeats are left out: their alert was heard before the recording began."
    if damaged:
        yield f"{damaged:,} lines cannot be read and are left out."
    yield ""
    yield from pen.table(("", "before", "after", "change"), list(_totals(found)))
    if found.later or found.earlier:
        yield from ("", f"{found.later:,} pages would come later than now, {found.earlier:,} sooner.")
    if found.lost_critical:
        number = len(found.lost_critical)
        yield from pen.heading(f"{number:,} critical {'page' if number == 1 else 'pages'} would be lost")
        lost = sorted(found.lost_critical, key=lambda each: each.at)
        head = ("when (UTC)", "alert", "service", "would be", "by")
        yield from pen.table(head, [_lost(each) for each in lost[:_LOST_SHOWN]])
        if number > _LOST_SHOWN:
            yield from ("", f"… and {number - _LOST_SHOWN:,} more; `-o json` has them all.")
    for kind, heading in ((Kind.FEWER, "Would page no more"), (Kind.MORE, "Would page anew")):
        rows = [
            (service, rules, why, f"{count:,}")
            for (of_kind, service, rules, why), count in found.reasons.most_common()
            if of_kind is kind
        ]
        if rows:
            yield from pen.heading(heading)
            was = "would be" if kind is Kind.FEWER else "was"
            yield from _long_table(pen, ("service", "rule", was, "episodes"), rows)
    if found.moves:
        yield from pen.heading("Would page otherwise")
        rows = [
            (name, old or "none", new or "none", f"{count:,}") for (name, old, new), count in found.moves.most_common()
        ]
        yield from _long_table(pen, ("what", "before", "after", "episodes"), rows)
    for heading, counts, paged in (("By service", found.by_service, True), ("By rule", found.by_rule, False)):
        if counts:
            yield from pen.heading(heading)
            yield from _long_table(pen, *_by_name(found, counts, paged=paged))
    yield from _examples(found, pen)


def _totals(found: Difference) -> Iterator[tuple[str, str, str, str]]:
    before, after = found.before, found.after
    rows: list[tuple[str, int, int]] = [
        ("incidents opened", before.opened, after.opened),
        ("events sent", before.events, after.events),
        ("episodes paged", before.paged.total(), after.paged.total()),
        *(
            (f"… {severity}", before.severities[severity], after.severities[severity])
            for severity in ("critical", "error", "warning", "info")
        ),
        ("… unrouted", before.paged["unrouted"], after.paged["unrouted"]),
        *(
            (
                f"episodes {outcome.value.replace('_', ' ')}",
                before.outcomes[outcome.value],
                after.outcomes[outcome.value],
            )
            for outcome in Outcome
            if outcome is not Outcome.DELIVERED and before.outcomes[outcome.value] + after.outcomes[outcome.value]
        ),
    ]
    for name, old, new in rows:
        yield name, f"{old:,}", f"{new:,}", f"{new - old:+,} ({_percent(old, new)})" if new != old else "0"


def _lost(change: Change) -> tuple[str, ...]:
    return (
        _moment(change.at),
        f"{_short(change.summary)} [{change.id}]",
        change.service,
        change.after.outcome.value.replace("_", " "),
        ", ".join(change.rules),
    )


def _by_name(
    found: Difference, counts: Counter[tuple[str, Kind]], *, paged: bool
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    names = Counter[str]()
    for (name, _), count in counts.items():
        names[name] += count
    rows = []
    for name, _ in names.most_common():
        plain = name.lstrip("+-")
        old = found.before.paged[name] if paged else found.before.matched[plain]
        new = found.after.paged[name] if paged else found.after.matched[plain]
        rows.append(
            (name, f"{old:,}", f"{new:,}", *(f"{counts[name, kind]:,}" for kind in (Kind.MORE, Kind.FEWER, Kind.MOVED)))
        )
    first = ("service", "paged before", "after") if paged else ("rule", "matched before", "after")
    return (*first, "more", "fewer", "moved"), rows


def _examples(found: Difference, pen: _MarkdownPen | _TextPen) -> Iterator[str]:
    shown: list[tuple[str, ...]] = []
    for kind in (Kind.MORE, Kind.MOVED, Kind.FEWER):
        seen = set[tuple[str, ...]]()
        for change in found.changes[kind]:
            likeness = (change.service, *change.rules, *change.fields)
            if likeness in seen or len(seen) >= 5:
                continue
            seen.add(likeness)
            shown.append((kind.value, _moment(change.at), f"{_short(change.summary)} [{change.id}]", _way(change)))
    if shown:
        yield from pen.heading("One of each")
        yield from pen.table(("", "when (UTC)", "alert", "before → after"), shown)


def _way(change: Change) -> str:
    if change.kind is Kind.MOVED:
        before, after = change.before.page, change.after.page
        return "; ".join(
            f"{name} {getattr(before, name) or 'none'} → {getattr(after, name) or 'none'}" for name in change.fields
        )
    return f"{_course(change.before)} → {_course(change.after)}"


def _course(course: Course) -> str:
    if course.page is None:
        return course.outcome.value.replace("_", " ") + (f" by {course.rule}" if course.rule else "")
    return f"{course.page.severity.value} page of {course.page.service or 'unrouted'}"


def _long_table(pen: _MarkdownPen | _TextPen, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield from pen.table(head, rows[:_ROWS])
    if len(rows) > _ROWS:
        yield from ("", f"… and {len(rows) - _ROWS:,} more rows.")


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _percent(old: int, new: int) -> str:
    return f"{100 * (new - old) / old:+.1f} %" if old else "new"


def _short(text: str) -> str:
    return text if len(text) <= _SUMMARY else text[: _SUMMARY - 1] + "…"
