"""Debian's Alertmanager, posting to alertrouter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.conftest import program
from tests.rig.servers import free_port
from tests.waiting import until

TOKEN = "e2e-token"


async def _answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


@asynccontextmanager
async def server(folder: Path, ready: str, name: str, *arguments: str) -> AsyncIterator[None]:
    """A program that is ready when `ready` answers 200; ended by its pid."""
    with (folder / f"{name}-{free_port()}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(program(name), *arguments, stdout=log, stderr=log)
        try:
            await until(lambda: _answers(ready), within_s=30)
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


@asynccontextmanager
async def alertmanager(
    folder: Path, router: str, name: str, group_by: str = "[alertname]", receiver: str = ""
) -> AsyncIterator[int]:
    """An Alertmanager, connected to no other, that posts to `router`: to its webhook, or as `receiver` says."""
    home, port = folder / name, free_port()
    webhook = f"""webhook_configs:
      - url: {router}/webhooks/alertmanager
        send_resolved: true
        http_config: {{authorization: {{type: Bearer, credentials: {TOKEN}}}}}
"""
    home.mkdir()
    (home / "am.yml").write_text(
        f"""
route: {{receiver: alertrouter, group_by: {group_by}, group_wait: 0s, group_interval: 1s, repeat_interval: 1m}}
receivers:
  - name: alertrouter
    {receiver or webhook}
"""
    )
    arguments = [
        f"--config.file={home / 'am.yml'}",
        f"--storage.path={home / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    async with server(home, f"http://127.0.0.1:{port}/-/ready", "prometheus-alertmanager", *arguments):
        yield port
