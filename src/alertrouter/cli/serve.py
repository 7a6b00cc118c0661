"""alertrouter serve"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import click
import structlog
from pydantic import SecretStr

from alertrouter import telemetry
from alertrouter.app import Service, running
from alertrouter.errors import RulesInvalid, SettingsInvalid, StoreUnavailable
from alertrouter.rules.load import load_config
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings, load_settings, unknown_variables
from alertrouter.shown import escaped, escaped_lines

#: Objects made before a collection. Python's 700 is reached within a few webhooks, which leave no cycles behind.
_GC_THRESHOLD = 50_000
#: Any well-formed key will do for the stand-in.
_SANDBOX_KEY = "0" * 32
_SANDBOX_PORT = 9088
#: `date` makes each one another alert: the same one again would be a duplicate.
_SAMPLE = (
    '{"alerts":[{"status":"firing","labels":{"alertname":"HighErrorRate","service":"payment","severity":"critical",'
    '"instance":"payment-\'$(date +%s)\'"},"annotations":{"summary":"5xx rate of payment above 5 %"}}]}'
)


@click.command()
@click.option("--listen", help="Address and port, such as 127.0.0.1:9087.")
@click.option("--rules", type=click.Path(path_type=Path), help="Directory of the rules.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Directory of the embedded Redis.")
@click.option("--redis-url", help="An external Redis; unset means the embedded one.")
@click.option("--log-format", type=click.Choice(["json", "console"]))
@click.option(
    "--shadow-rules", type=click.Path(path_type=Path), help="Rules to try beside the others; nothing is sent by them."
)
@click.option("--history-path", type=click.Path(path_type=Path), help="Folder for the history, as files.")
@click.option("--sandbox", is_flag=True, help="If no routing key is set, send to a PagerDuty stand-in in this process.")
def command(sandbox: bool, **options: Any) -> None:
    """Receive alerts, and page for those that should."""
    try:
        settings = _settings(options, os.environ)
        telemetry.set_up_logging(settings.log_format, settings.log_level)
        sys.excepthook = telemetry.log_crash
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the memory of this process is full of keys
        for stray in unknown_variables(os.environ):
            structlog.get_logger().warning(stray)
        _run(_serve(settings, sandbox))
    except RulesInvalid as error:
        heading = "alertrouter: the rules cannot be loaded (--rules or ALERTROUTER_RULES names their directory)"
        click.echo("\n".join(map(escaped, (heading, *error.problems))), err=True)
        sys.exit(1)
    except SettingsInvalid as error:
        click.echo(escaped_lines(f"alertrouter: {error}"), err=True)
        sys.exit(2)
    except StoreUnavailable as error:
        click.echo(escaped_lines(f"alertrouter: {error}"), err=True)
        sys.exit(1)


def _settings(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    # where the rules are decides which alertrouter.yaml is read, so that setting is found first
    folder = load_settings(environ, options).rules
    config = folder / "alertrouter.yaml"
    file = load_config(config).get("settings") if config.exists() else None
    return load_settings(environ, options, file)


def _run(main: Any) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def _serve(settings: Settings, sandbox: bool) -> None:
    stop, hangup = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        stand_in = None
        if sandbox and settings.pagerduty_routing_key is None:
            stand_in = await _stand_in(stack)
            settings = settings.model_copy(
                update={
                    "instance": f"{settings.instance}.sandbox",  # what was tried out is no part of the real thing
                    "pagerduty_events_url": stand_in.url,
                    "pagerduty_routing_key": SecretStr(_SANDBOX_KEY),
                }
            )
        service = await stack.enter_async_context(running(settings, os.environ))
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
        reloading = asyncio.create_task(_reload_on(hangup, service))
        stack.callback(reloading.cancel)
        gc.collect()
        gc.freeze()  # rules and modules live as long as we do: not to be looked through at every collection
        gc.set_threshold(_GC_THRESHOLD)
        _greet(service, settings, stand_in)
        await stop.wait()
        structlog.get_logger().info("draining")


async def _stand_in(stack: AsyncExitStack) -> Sandbox:
    """The stand-in on its usual port, so that a page left open goes on showing events; else on any."""
    try:
        return await stack.enter_async_context(Sandbox(port=_SANDBOX_PORT))
    except OSError:
        return await stack.enter_async_context(Sandbox())


async def _reload_on(hangup: asyncio.Event, service: Service) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        with suppress(RulesInvalid):  # logged and counted there; the old rules stay
            await service.reload()


def _greet(service: Service, settings: Settings, stand_in: Sandbox | None) -> None:
    structlog.get_logger().info("listening", url=service.url, rules=service.rules.ruleset.version)
    if service.operations_url:
        structlog.get_logger().info("health and metrics", url=service.operations_url)
    if stand_in is None:
        return
    token = ' -H "X-Alertrouter-Token: $TOKEN"' if settings.webhook_tokens else ""
    click.echo(
        f"""
alertrouter   {service.url}
PagerDuty     {stand_in.url}   a stand-in, because no routing key is set: forwarded events show up there

Send a sample alert:

  curl{token} {service.url}/webhooks/alertmanager -H 'Content-Type: application/json' -d '{_SAMPLE}'

and see the event it became:

  curl {stand_in.url}/events        or open {stand_in.url} in a browser

Make PagerDuty fail, and watch it being retried:

  curl {stand_in.url}/fail -d '{{"status": 500, "times": 3}}'
"""
    )
