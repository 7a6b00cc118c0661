"""The yardstick: an aiohttp handler that reads the body and answers 202, and does nothing else."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web


async def _accept(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=202)


def main() -> None:
    """Serve on the port given as first argument until killed."""
    application = web.Application()
    application.add_routes([web.post("/webhooks/alertmanager", _accept)])
    web.run_app(
        application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=uvloop.new_event_loop()
    )


main()
