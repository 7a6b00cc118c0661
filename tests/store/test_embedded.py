"""The embedded Redis: survives SIGKILL with everything it confirmed, and has one owner."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from alertrouter.errors import SettingsInvalid
from alertrouter.store.connect import connect
from alertrouter.store.embedded import start_embedded
from alertrouter.store.store import AlertStore
from tests.alerts import NIGHT, make_alert


async def test_what_was_confirmed_survives_sigkill(tmp_path: Path) -> None:
    embedded = await start_embedded(tmp_path)
    client = connect(embedded.url)
    await AlertStore(client).accept([make_alert()], NIGHT)
    os.kill(embedded.pid, signal.SIGKILL)
    await client.aclose()
    await embedded.stop()

    embedded = await start_embedded(tmp_path)
    client = connect(embedded.url)
    record = await AlertStore(client).record(make_alert().id)
    await client.aclose()
    await embedded.stop()
    assert record is not None and record.alert == make_alert()


async def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    embedded = await start_embedded(tmp_path)
    with pytest.raises(SettingsInvalid, match="in use by another alertrouter"):
        await start_embedded(tmp_path)
    await embedded.stop()


async def test_a_long_path_still_gets_a_socket(tmp_path: Path) -> None:
    embedded = await start_embedded(tmp_path / ("x" * 120))
    client = connect(embedded.url)
    assert await client.ping()
    await client.aclose()
    await embedded.stop()
    assert not Path(embedded.url.removeprefix("unix://")).parent.exists()


async def test_a_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsInvalid, match="ALERTROUTER_DATA_DIR"):
        await start_embedded(tmp_path / "file" / "data")
