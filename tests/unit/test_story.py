"""What happened to one alert, on one screen."""

from __future__ import annotations

from alertrouter.history.entries import Differed, Duplicate, Ended, Sent, SilenceAdded, SilenceEnded
from alertrouter.history.reading import Line, Recorded
from alertrouter.history.story import story
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND, make_alert

ID = make_alert().id
PD = "pagerduty:default"


def heard(at: int, status: str = "firing", news: str = "new") -> Line:
    return Recorded(at=at, id=ID, alert=make_alert(status=status), news=news)


def sent(at: int, result: str = "delivered", state: str = "triggered", reason: str = "", rule: str = "pay") -> Line:
    return Sent(at=at, id=ID, destination=PD, result=result, state=state, reason=reason, service="payment", rule=rule)


def screen(*lines: Line) -> list[str]:
    return list(story(lines))


def test_from_the_first_sighting_to_the_resolve() -> None:
    told = screen(
        heard(NIGHT),
        sent(NIGHT, "again", "", "HTTP 500"),
        sent(NIGHT + SECOND, "again", "", "HTTP 500"),
        sent(NIGHT + 3 * SECOND),
        *(Duplicate(at=NIGHT + minute * MINUTE, id=ID, status="firing") for minute in (1, 2, 3)),
        heard(NIGHT + 5 * HOUR, news="refresh"),
        sent(NIGHT + 5 * HOUR),
        heard(NIGHT + 22 * HOUR, "resolved", "status"),
        sent(NIGHT + 22 * HOUR, state="resolved"),
    )
    assert told == [
        ID,
        "payment is down",
        "Resolved at pagerduty:default since 2027-01-11 01:00:00 UTC, paged once.",
        "",
        "2027-01-10 UTC",
        "03:00:00  heard: fires, critical",
        "03:00:00  judged: for payment, by rule pay",
        "03:00:00  sent to pagerduty:default: NOT TAKEN (HTTP 500), to be tried again, 2 times until 03:00:01",
        "03:00:03  PAGED: pagerduty:default took it",
        "03:01:00  heard again: fires, unchanged, 3 times until 03:03:00",
        "08:00:00  heard: fires, critical (unchanged, and forwarded again after a while)",
        "08:00:00  told again: pagerduty:default took it, and has it open already",
        "2027-01-11 UTC",
        "01:00:00  heard: resolved",
        "01:00:00  RESOLVED: pagerduty:default took it",
    ]


def test_what_a_silence_kept_back_and_let_go() -> None:
    reason = "silence 4f88ef of anna until 2027-01-10 05:00:00 UTC: load test"
    lines = [
        SilenceAdded(
            at=NIGHT, id="silence:4f88ef", owner="anna", reason="load test", ends_at=NIGHT + 2 * HOUR, of_alert=ID
        ),
        heard(NIGHT + MINUTE),
        Ended(at=NIGHT + MINUTE, id=ID, outcome="suppressed", rule="silence:4f88ef", reason=reason, service="payment"),
    ]
    told = screen(*lines)
    assert (told[0], told[2]) == (ID, f"Nobody was paged: kept back, as one of payment: {reason}.")
    assert told[5] == "03:00:00  silenced by anna until 2027-01-10 05:00: load test"
    told = screen(
        *lines,
        SilenceEnded(at=NIGHT + HOUR, id="silence:4f88ef", owner="anna", by="bob", of_alert=ID),
        sent(NIGHT + HOUR),
    )
    assert told[2] == "Open at pagerduty:default since 2027-01-10 04:00:00 UTC, paged once."
    assert told[-3:] == [
        "04:00:00  the silence of anna is over: bob ended it",
        "04:00:00  judged: for payment, by rule pay",
        "04:00:00  PAGED: pagerduty:default took it",
    ]


def test_how_it_stands_is_said_first() -> None:
    letter = '{"id":"x","reason":"Event object is invalid","tries":1}'
    unfit = screen(heard(NIGHT), sent(NIGHT, "refused", "", letter))
    assert unfit[2] == "NOT DELIVERED: refused by pagerduty:default, and kept as a dead letter; it fires."
    assert unfit[-1] == (
        "03:00:00  sent to pagerduty:default: REFUSED FOR GOOD, kept as a dead letter: Event object is invalid"
    )
    tried = screen(heard(NIGHT), sent(NIGHT, "again", "", "HTTP 503"), sent(NIGHT + SECOND, "again", "", "HTTP 500"))
    assert tried[2] == "NOT DELIVERED YET: pagerduty:default failed 2 times, at last with HTTP 500; it fires."
    assert screen(heard(NIGHT))[2] == "Heard, and nothing was decided or sent yet."
    short = screen(
        heard(NIGHT),
        heard(NIGHT, "resolved", "status"),
        Ended(at=NIGHT, id=ID, outcome="resolved_before_delivery"),
    )
    assert short[2] == "Nobody is paged: it was over before it could be sent."
    dropped = screen(heard(NIGHT), Ended(at=NIGHT, id=ID, outcome="dropped", rule="noise", reason="nobody wants it"))
    assert dropped[2] == "Nobody was paged: dropped by rule noise: nobody wants it."
    muted = screen(
        heard(NIGHT), sent(NIGHT), Ended(at=NIGHT, id=ID, outcome="suppressed", rule="mute", reason="moving")
    )
    assert muted[2].startswith(
        "Open at pagerduty:default since 2027-01-10 03:00:00 UTC, paged once; news of it is kept"
    )


def test_it_fits_a_screen_however_often_it_flapped() -> None:
    lines: list[Line] = []
    for number in range(200):
        at = NIGHT + number * MINUTE
        lines += [heard(at), sent(at), heard(at + SECOND, "resolved", "status"), sent(at + SECOND, state="resolved")]
    told = screen(*lines, Differed(at=NIGHT, id=ID, differences={}))
    assert len(told) <= 45
    assert told[2].endswith("paged 200 times.")
    [gap] = [line for line in told if "more in between" in line]
    assert "766 more" in gap, "4 of each of 200, and who it was for"
