"""The last addresses of a name stand in while DNS fails, and not for ever."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from structlog.testing import capture_logs

from alertrouter.destinations import names
from alertrouter.destinations.names import LAST_ANSWER_S, LastAnswers


class Dns(AbstractResolver):
    """Says `address` for every name; raises OSError for "", and takes for ever where it is None."""

    def __init__(self) -> None:
        self.address: str | None = "192.0.2.1"

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        while self.address is None:
            await asyncio.sleep(0.001)
        if not self.address:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [ResolveResult(hostname=host, host=self.address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is open."""


class Rig:
    def __init__(self) -> None:
        self.dns, self.now_s = Dns(), 0.0
        self.answers = LastAnswers(self.dns, lambda: self.now_s)

    async def addresses(self, host: str = "events.example.org") -> list[str]:
        return [each["host"] for each in await self.answers.resolve(host, 443)]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(names, "PATIENCE_S", 0.01)
    return Rig()


@pytest.mark.parametrize("trouble", ["", None], ids=["refused", "silent"])
async def test_the_last_answer_stands_in_for_an_hour(rig: Rig, trouble: str | None) -> None:
    assert await rig.addresses() == ["192.0.2.1"]
    rig.now_s, rig.dns.address = LAST_ANSWER_S, trouble
    assert await rig.addresses() == ["192.0.2.1"]
    rig.now_s += 1
    rig.dns.address = ""  # nothing stands in any more, and who waits is told what is wrong
    with pytest.raises(socket.gaierror):
        await rig.addresses()


async def test_a_new_answer_is_used_at_once_and_lasts_an_hour_itself(rig: Rig) -> None:
    await rig.addresses()
    rig.now_s, rig.dns.address = LAST_ANSWER_S, "192.0.2.2"
    assert await rig.addresses() == ["192.0.2.2"]
    rig.now_s, rig.dns.address = LAST_ANSWER_S + 1, ""
    assert await rig.addresses() == ["192.0.2.2"]


async def test_one_name_does_not_stand_in_for_another(rig: Rig) -> None:
    await rig.addresses()
    rig.dns.address = ""
    with pytest.raises(socket.gaierror):
        await rig.addresses("hooks.example.org")


async def test_a_first_answer_may_take_its_time(rig: Rig) -> None:
    rig.dns.address = None
    asked = asyncio.create_task(rig.addresses())
    await asyncio.wait([asked], timeout=10 * names.PATIENCE_S)
    assert not asked.done()
    rig.dns.address = "192.0.2.1"
    assert await asked == ["192.0.2.1"]


async def test_it_is_logged_once_for_each_outage(rig: Rig) -> None:
    await rig.addresses()
    with capture_logs() as logged:
        for _ in range(2):
            rig.dns.address = ""
            await rig.addresses()
            await rig.addresses()
            rig.dns.address = "192.0.2.1"
            await rig.addresses()
    assert [each["host"] for each in logged] == ["events.example.org"] * 2
