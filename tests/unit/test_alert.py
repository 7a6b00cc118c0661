"""The identity of an alert: readable, bounded, and its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.alerts import make_alert


def test_an_id_is_readable() -> None:
    assert make_alert("7be148814d8a8bd4").id == "alertmanager:7be148814d8a8bd4"


def test_255_characters_are_kept_and_256_are_hashed() -> None:
    room = 255 - len("alertmanager:")
    assert make_alert("é" * room).dedup_key == "alertmanager:" + "é" * room
    hashed = make_alert("é" * (room + 1)).dedup_key
    assert hashed.startswith("alertmanager:sha256:") and len(hashed) == len("alertmanager:sha256:") + 64


@given(st.text(min_size=1, max_size=400), st.text(min_size=1, max_size=400))
def test_different_alerts_have_different_ids_of_bounded_length(one: str, other: str) -> None:
    assert (make_alert(one).id == make_alert(other).id) is (one == other)
    assert len(make_alert(one, source="alertmanager/" + "n" * 64).id) <= 255
