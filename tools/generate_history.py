"""Writes a month of alerts as `alertrouter history -o jsonl` would: to try `alertrouter replay` on, and to measure it.

    python -m tools.generate_history --alerts 10000 --seed 7 > month.jsonl

The bodies are those of tests/payloads, as Alertmanager and Datadog sent them, with other labels; they go through the
parsers of the router. What happens to them is made up: alerts that last from a minute to a day and are repeated every
group_interval, some that flap, storms in which hundreds fire at once, staging that cries wolf. The same seed writes the
same bytes.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from alertrouter.alert import Alert, Status
from alertrouter.history.entries import Duplicate, encode
from alertrouter.history.reading import Recorded
from alertrouter.sources import PARSERS

PAYLOADS = Path(__file__).parents[1] / "tests" / "payloads"
#: Alertmanager's default, and Datadog's usual renotification.
GROUP_INTERVAL_MS, RENOTIFY_MS = 5 * 60_000, 3600_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
DATADOG_SHARE, FLAPPING_SHARE, STORM_SHARE = 0.15, 0.04, 0.002

#: Service, alert, severity, summary. {host} and the like are filled in.
ALERTMANAGER = [
    ("payment", "HighErrorRate", "critical", "5xx rate of payment above 5 % on {host}"),
    ("payment", "PodOOMKilled", "error", "OOMKilled: payment pod on {host}"),
    ("payment-service", "QueueDepth", "warning", "payment queue on {host} is {n}000 deep"),
    ("user", "LoginFailures", "error", "login failures above 20 % on {host}"),
    ("user-service", "HighLatency", "warning", "p99 of user above 2 s on {host}"),
    ("search", "IndexLag", "warning", "search index lag of {n} minutes on {host}"),
    ("search", "HighErrorRate", "critical", "search answers 503 on {host}"),
    ("notification", "ProviderErrors", "error", "SMS provider answers 502 to {host}"),
    ("analytics", "LoadLate", "info", "nightly load is {n} minutes late"),
    ("analytics-pipeline", "DiskFull", "warning", "Disk of {host} is full in {n} h"),
    ("billing-legacy", "CertExpires", "warning", "certificate of {host} expires in {n} days"),
    ("", "NodeDown", "critical", "{host} does not answer"),
    ("search", "DNSTimeout", "warning", "DNS timeout on {host}"),
]
DATADOG = [
    ("payment", "P1", "Checkout latency is high"),
    ("user", "P3", "Sign-ups below forecast"),
    ("notification", "P2", "Push delivery is slow"),
    ("checkout", "P4", "Cart abandonment is unusual"),
]


@dataclass(frozen=True, slots=True)
class Sighting:
    """One alert as it is heard once, at `at` (ms); it fires since `began`, or fired until `ended`."""

    at: int
    kind: int  # of ALERTMANAGER, then of DATADOG
    host: str
    env: str
    status: str
    began: int
    ended: int
    repeats: bool


def sightings(alerts: int, seed: int, start: int, days: float) -> Iterator[Sighting]:
    """So many sightings, in the order of time."""
    chance = random.Random(seed)
    made: list[Sighting] = []
    while len(made) < alerts:
        made += _incident(chance, start, days)
    made.sort(key=lambda each: (each.at, each.kind, each.host, each.env))
    open_: set[tuple[int, str, str]] = set()
    for each in heapq.nsmallest(alerts, made, key=lambda each: each.at):
        key = (each.kind, each.host, each.env)
        known = key in open_
        if each.status == "resolved":
            open_.discard(key)
        else:
            open_.add(key)
        if known or each.status == "firing":
            yield each if known or not each.repeats else _first(each)


def _first(each: Sighting) -> Sighting:
    return Sighting(each.at, each.kind, each.host, each.env, each.status, each.began, each.ended, repeats=False)


def _incident(chance: random.Random, start: int, days: float) -> Iterator[Sighting]:
    """One thing that goes wrong, by day rather than by night: one alert, one that flaps, or a storm of many."""
    datadog = chance.random() < DATADOG_SHARE
    kind = len(ALERTMANAGER) + chance.randrange(len(DATADOG)) if datadog else chance.randrange(len(ALERTMANAGER))
    env = "staging" if chance.random() < 0.3 else "production"
    day, hour = chance.randrange(max(1, round(days))), min(23.99, max(0.0, chance.gauss(14, 5)))
    began = start + round(day * DAY_MS + hour * 3600_000) % round(days * DAY_MS)
    hosts = [f"{'web' if kind % 2 else 'db'}-{chance.randrange(60):02d}"]
    fate = chance.random()
    if fate < STORM_SHARE and not datadog:
        hosts = [f"node-{n:03d}" for n in range(chance.randrange(50, 400))]
    lasts = min(chance.lognormvariate(3.2, 1.2), 1440) * MINUTE_MS
    for host in hosts:
        if STORM_SHARE <= fate < STORM_SHARE + FLAPPING_SHARE:
            at = began
            for _ in range(chance.randrange(5, 20)):
                on = round(chance.uniform(1, 6) * MINUTE_MS)
                yield from _episode(kind, host, env, at, on)
                at += on + round(chance.uniform(1, 6) * MINUTE_MS)
        else:
            yield from _episode(kind, host, env, began, round(lasts))


def _episode(kind: int, host: str, env: str, began: int, lasts: int) -> Iterator[Sighting]:
    """From when it fires to when it is over; nothing where Alertmanager would not have told of it in between.

    Alertmanager tells of a whole group at once, every group_interval: what is news and what is not.
    """
    ended = began + lasts
    if kind < len(ALERTMANAGER):
        interval = GROUP_INTERVAL_MS
        first = began + (kind * 37_000 + (101_000 if env == "staging" else 0) - began) % interval
        over = ended + (first - ended) % interval
    else:
        interval, first, over = RENOTIFY_MS, began, ended
    for at in range(first, over, interval):
        yield Sighting(at, kind, host, env, "firing", began, 0, repeats=at > first)
    if over > first:
        yield Sighting(over, kind, host, env, "resolved", began, ended, repeats=False)


@cache
def _recorded(name: str) -> str:
    return (PAYLOADS / name).read_text()


def _text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def alert_of(each: Sighting) -> Alert:
    """The alert as the router would read it from its sender's body."""
    sender, body = (
        ("alertmanager", _alertmanager(each)) if each.kind < len(ALERTMANAGER) else ("datadog", _datadog(each))
    )
    [alert] = PARSERS[sender](json.dumps(body).encode(), {}, sender).alerts
    return alert


def _alertmanager(each: Sighting) -> dict[str, Any]:
    service, name, severity, summary = ALERTMANAGER[each.kind]
    webhook: dict[str, Any] = json.loads(_recorded("alertmanager/group_one_resolved.json"))
    alert = webhook["alerts"][0]
    labels = {"alertname": name, "cluster": "eu-1", "instance": f"{each.host}.example.org:9100", "job": "node"}
    labels |= {"severity": severity, "env": each.env, **({"service": service} if service else {})}
    alert["labels"] = labels
    number = 1 + sum(each.host.encode()) % 9  # the same for a host, or the text would change
    alert["annotations"]["summary"] = summary.format(host=each.host, n=number)
    alert["status"] = each.status
    alert["startsAt"] = _text(each.began)
    alert["endsAt"] = _text(each.ended) if each.status == "resolved" else "0001-01-01T00:00:00Z"
    del alert["fingerprint"]  # made from the labels, as Alertmanager makes it
    group = {"alertname": name, "cluster": "eu-1"}
    webhook |= {"alerts": [alert], "status": each.status, "groupLabels": group, "commonLabels": labels}
    return webhook


def _datadog(each: Sighting) -> dict[str, Any]:
    service, priority, title = DATADOG[each.kind - len(ALERTMANAGER)]
    body: dict[str, Any] = json.loads(_recorded("datadog/template_triggered.json"))
    transition = "Recovered" if each.status == "resolved" else "Renotify" if each.repeats else "Triggered"
    full = f"[{transition} on {{env:{each.env},host:{each.host}}}] {title}"
    body |= {"title": f"[{priority}] {full}", "date": str(each.at), "last_updated": str(each.at)}
    body |= {"hostname": each.host, "text": title}
    body |= {"tags": f"env:{each.env}, host:{each.host}, monitor, service:{service}"}
    body["alert"] |= {
        "id": str(31415900 + each.kind),
        "title": full,
        "transition": transition,
        "type": "success" if each.status == "resolved" else "error",
        "priority": priority,
        "cycle_key": str(each.began),
        "aggreg_key": f"{each.env}-{each.host}",
        "scope": f"host:{each.host}, env:{each.env}",
    }
    return body


def lines(alerts: int, seed: int, start: int, days: float) -> Iterator[bytes]:
    """The lines of the recording: what repeats itself is a short entry, as in the history."""
    ids: dict[tuple[int, str, str], str] = {}
    for number, each in enumerate(sightings(alerts, seed, start, days)):
        place = f"{each.at}-{number}"
        key = (each.kind, each.host, each.env)
        if each.repeats and key in ids:
            yield encode(Duplicate(at=each.at, id=ids[key], status=each.status, entry=place))
            continue
        alert = alert_of(each)
        ids[key] = alert.id
        if each.status == "firing":
            alert = replace(alert, status=Status.FIRING)
        yield encode(Recorded(at=each.at, id=alert.id, alert=alert, entry=place))


def main() -> None:
    parser = argparse.ArgumentParser(description="A month of made-up alerts in real shapes, as JSONL.")
    parser.add_argument("--alerts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", default="2027-01-01T00:00:00+00:00")
    parser.add_argument("--days", type=float, default=30)
    options = parser.parse_args()
    start = round(datetime.fromisoformat(options.start).timestamp() * 1000)
    for line in lines(options.alerts, options.seed, start, options.days):
        sys.stdout.buffer.write(line + b"\n")


if __name__ == "__main__":
    main()
