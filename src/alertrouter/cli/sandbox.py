"""`alertrouter sandbox`: the PagerDuty stand-in alone."""

from __future__ import annotations

import asyncio
import signal

import click
import uvloop

from alertrouter.errors import SettingsInvalid
from alertrouter.sandbox import Sandbox

_STARTED = """\
PagerDuty stand-in on {url} (open it in a browser to see events arrive).

Point alertrouter at it; any 32 letters and digits will do for the key:
  export ALERTROUTER_PAGERDUTY_EVENTS_URL={url}
  export ALERTROUTER_PAGERDUTY_ROUTING_KEY=sandbox0sandbox0sandbox0sandbox0

Make its next three answers fail:
  curl -X POST {url}/fail -d '{{"status": 503, "times": 3}}'
"""


@click.command("sandbox")
@click.option("--listen", default="127.0.0.1:9088", show_default=True, help="Loopback address and port; port 0 is any.")
@click.option(
    "--calls-per-minute",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Answer 429 beyond this many calls per routing key in 60 s, as PagerDuty does at about 120. 0 means never.",
)
def command(listen: str, calls_per_minute: int) -> None:
    """The PagerDuty stand-in alone: accepts and shows events, and fails when told to.

    Stops on SIGTERM or Ctrl-C.
    """
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise click.BadParameter(f"{listen!r} is not host:port, such as 127.0.0.1:9088", param_hint="--listen")
    try:
        sandbox = Sandbox(host.strip("[]"), int(port), calls_per_minute=calls_per_minute)
    except SettingsInvalid as error:
        raise click.BadParameter(str(error), param_hint="--listen") from None
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(sandbox))
    except OSError as error:
        raise click.BadParameter(f"cannot listen on {listen}: {error.strerror}", param_hint="--listen") from None


async def _run(sandbox: Sandbox) -> None:
    stopping = asyncio.Event()
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(stop_signal, stopping.set)
    async with sandbox:
        click.echo(_STARTED.format(url=sandbox.url))
        await stopping.wait()
