"""What was found about an alert's flapping is kept with its record, and never over newer news."""

from __future__ import annotations

from alertrouter.record import Flapping
from alertrouter.store.store import AlertStore
from tests.alerts import NIGHT, SECOND, make_alert

FOUND = Flapping(version=1, over=True, times=(NIGHT, NIGHT + SECOND), since=1, until=NIGHT + 60 * SECOND, forgiven=1)


async def test_it_is_read_as_it_was_put_down(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    assert record.flapping == Flapping()
    await store.put_flapping(record, FOUND)
    again = await store.record(record.id)
    assert again is not None and again.flapping == FOUND


async def test_newer_news_is_judged_by_itself(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.accept([make_alert(status="resolved", ended=NIGHT + SECOND)], NIGHT + SECOND)
    await store.put_flapping(record, FOUND)
    again = await store.record(record.id)
    assert again is not None and again.flapping == Flapping()
