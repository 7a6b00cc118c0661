"""When silence means that an alert is over: the table of transitions."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from msgspec.structs import replace

from alertrouter.alarms import DIGEST, PAGE_TEST, SELF
from alertrouter.alert import Severity, Status
from alertrouter.delivery.silence import AUTO_RESOLVE_AFTER_MS, FORGOTTEN_AFTER_MS, AutoResolve, resolved_by_us, silence
from alertrouter.errors import SettingsInvalid
from alertrouter.record import News, Record, Source, State, Told
from alertrouter.settings import load_settings
from tests.alerts import HOUR, MINUTE, NIGHT, make_alert

AFTER = 30 * MINUTE
DAY = 24 * HOUR
RECORD = Record(
    id="alertmanager:f00d",
    version=1,
    status=Status.FIRING,
    severity=Severity.CRITICAL,
    news=News.NEW,
    alert=make_alert(),
    last_heard=NIGHT,
    told=(Told("pagerduty:default", State.TRIGGERED, version=1),),
)


def heard(ago: int, since: int = 10 * DAY, *, now: int) -> Source:
    return Source(now - ago, now - since)


@pytest.mark.parametrize(
    ("record", "ago", "since", "passed", "over", "look_in"),
    [
        (RECORD, 0, 10 * DAY, 0, False, AFTER),
        (RECORD, 0, 10 * DAY, AFTER - 1, False, 1),
        (RECORD, 0, 10 * DAY, AFTER, True, 0),
        (RECORD, HOUR, 10 * DAY, 2 * HOUR, True, 0),
        (RECORD, HOUR + 1, 10 * DAY, 2 * HOUR, False, 10 * MINUTE),
        # its sender is back from a silence, and has not had the time to repeat it
        (RECORD, 0, 10 * MINUTE, 2 * HOUR, False, 20 * MINUTE),
        (RECORD, 0, AFTER, 2 * HOUR, True, 0),
        (replace(RECORD, status=Status.ACKNOWLEDGED), 0, 10 * DAY, AFTER, True, 0),
        (replace(RECORD, status=Status.RESOLVED), 0, 10 * DAY, DAY, False, 0),
        (replace(RECORD, told=()), 0, 10 * DAY, AFTER, True, 0),
        # whatever its sender does
        (RECORD, 30 * DAY, 30 * DAY, 30 * DAY, True, 0),
        (replace(RECORD, told=()), 30 * DAY, 30 * DAY, 30 * DAY, False, 10 * MINUTE),
    ],
)
def test_with_a_sender_that_repeats(
    record: Record, ago: int, since: int, passed: int, over: bool, look_in: int
) -> None:
    now = NIGHT + passed
    found = silence(record, heard(ago, since, now=now), AFTER, now)
    assert (found.over, found.look_at) == (over, now + look_in if look_in else 0)
    assert bool(found.reason) == over


def test_with_a_sender_that_does_not() -> None:
    for passed in (0, 29 * DAY):
        assert silence(RECORD, None, 0, NIGHT + passed).look_at == NIGHT + FORGOTTEN_AFTER_MS
    assert silence(RECORD, None, 0, NIGHT + FORGOTTEN_AFTER_MS).over
    assert not silence(replace(RECORD, told=()), None, 0, NIGHT + FORGOTTEN_AFTER_MS).over


@pytest.mark.parametrize("source", [SELF, DIGEST, PAGE_TEST])
@pytest.mark.parametrize("after_ms", [0, AFTER])
def test_what_we_send_ourselves_is_not_closed(source: str, after_ms: int) -> None:
    ours = replace(RECORD, alert=replace(RECORD.alert, source=source))
    for passed in (0, AFTER, FORGOTTEN_AFTER_MS, 2 * FORGOTTEN_AFTER_MS):
        now = NIGHT + passed
        found = silence(ours, heard(0, now=now), after_ms, now)
        assert (found.over, found.look_at) == (False, 0), passed


def test_a_sender_nobody_remembers_says_nothing() -> None:
    assert not silence(RECORD, None, AFTER, NIGHT + HOUR).over


def test_it_is_put_down_as_resolved_with_the_reason() -> None:
    reason = silence(RECORD, heard(0, now=NIGHT + 121 * HOUR), AFTER, NIGHT + 121 * HOUR).reason
    assert reason == "resolved by alertrouter: its sender has not repeated it for 121 h"
    alert = resolved_by_us(make_alert(), reason)
    assert (alert.status, alert.notes, alert.id) == (Status.RESOLVED, (reason,), RECORD.id)


@pytest.mark.parametrize(
    ("setting", "source", "after_ms"),
    [
        (None, "alertmanager", AUTO_RESOLVE_AFTER_MS),
        (None, "alertmanager/team-a", AUTO_RESOLVE_AFTER_MS),
        (None, "grafana", AUTO_RESOLVE_AFTER_MS),
        (None, "datadog", 0),
        (None, "pagerduty", 0),
        (None, "alertrouter", 0),
        ("30m", "alertmanager", 30 * MINUTE),
        ("30m", "datadog", 0),
        ("0s", "alertmanager", 0),
        ("121h, datadog=2d, alertmanager/team-a=30m", "datadog/eu", 2 * DAY),
        ("121h, datadog=2d, alertmanager/team-a=30m", "alertmanager/team-a", 30 * MINUTE),
        ("121h, datadog=2d, alertmanager/team-a=30m", "alertmanager/team-b", 121 * HOUR),
        ("grafana=1h", "alertmanager", AUTO_RESOLVE_AFTER_MS),
    ],
)
def test_after_how_long_is_a_setting(setting: str | None, source: str, after_ms: int) -> None:
    environ = {"ALERTROUTER_AUTO_RESOLVE_AFTER": setting} if setting else {}
    assert AutoResolve.from_setting(load_settings(environ, {}).auto_resolve_after).of(source) == after_ms


@pytest.mark.parametrize("wrong", ["soon", "121h,", "=5m", "datadog=", "datadog"])
def test_a_setting_that_cannot_be_read_says_what_to_write(wrong: str) -> None:
    with pytest.raises(SettingsInvalid, match="ALERTROUTER_AUTO_RESOLVE_AFTER"):
        load_settings({"ALERTROUTER_AUTO_RESOLVE_AFTER": wrong}, {})


def test_the_longest_name_wins() -> None:
    both = AutoResolve(1, MappingProxyType({"alertmanager": 2, "alertmanager/a": 3}))
    assert [both.of(name) for name in ("alertmanager/a", "alertmanager/b", "grafana", "datadog")] == [3, 2, 1, 0]
