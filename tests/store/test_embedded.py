"""The embedded Redis: survives SIGKILL with everything it confirmed, and has one owner."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from alertrouter.errors import SettingsInvalid
from alertrouter.store.connect import COMMAND_S, connect
from alertrouter.store.embedded import _wait_until_up, start_embedded
from alertrouter.store.store import AlertStore
from tests.alerts import NIGHT, make_alert
from tests.conftest import program
from tests.rig.servers import RedisServer


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


async def test_a_server_that_is_slow_to_answer_is_waited_for(tmp_path: Path) -> None:
    """With much to load, or a machine that has other things to do, one command may go unanswered."""
    async with RedisServer(program("redis-server"), tmp_path) as server:
        assert server._process is not None
        server.freeze()
        up = asyncio.create_task(_wait_until_up(server.url, server._process, tmp_path / "log"))
        await asyncio.wait([up], timeout=COMMAND_S + 0.5)  # the outage, not a wait for anything
        server.thaw()
        await asyncio.wait_for(up, 10)
