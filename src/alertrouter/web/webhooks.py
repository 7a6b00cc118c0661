"""POST /webhooks/{sender}[/{name}]: authenticate, read, parse, store, answer.

No rule, no catalogue and no PagerDuty in the request. 2xx only after Redis confirmed; 503 for anything worth
retrying, never 429 (Alertmanager and Datadog would drop the alerts) and never 3xx.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Protocol

import msgspec
import structlog
from aiohttp import web

from alertrouter import telemetry
from alertrouter.alert import Alert
from alertrouter.errors import BadPayload, StoreUnavailable
from alertrouter.sources import CUSTOM, SENDERS, ParsedPayload, Parser, find_parser
from alertrouter.sources.body import header
from alertrouter.sources.payload import read_headers
from alertrouter.web.auth import Access, Credentials, access, has_token_in_query, token_shown, unauthorized
from alertrouter.web.body import NO_END, Room, read_body, read_raw
from alertrouter.web.signatures import is_signed, signer

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
#: More reasons would only repeat themselves in the sender's log.
_MOST_SKIPPED_SHOWN = 20
#: Bytes of a body that takes noticeable time to parse: some 20 ms.
_LARGE = 256 * 1024

# finding a metric by its labels costs as much as all the rest of counting; the labels come from closed sets
_received = cache(telemetry.ALERTS_RECEIVED.labels)
_answers = cache(telemetry.WEBHOOKS.labels)
_credentials = cache(telemetry.WEBHOOK_CREDENTIALS.labels)

Accept = Callable[[Sequence[Alert]], Awaitable[Sequence[StrEnum]]]
#: Sender, body, its Content-Type, the status it is answered with, why, and the headers that its parser reads as well.
Keep = Callable[[str, bytes, str, int, str, Mapping[str, str]], Awaitable[None]]
#: Sender, why.
OnOversized = Callable[[str, str], Awaitable[None]]
#: Sender, headers, body. Raises NotAdmitted for what is not genuine.
Gate = Callable[[str, Mapping[str, str], bytes], Awaitable[None]]


class OnRefused(Protocol):
    """Is told whose webhook was refused and why. known: whose it was needs no proof."""

    def __call__(self, sender: str, words: str, *, known: bool) -> None: ...


def _nobody(sender: str, words: str = "", *, known: bool = False) -> None:
    """Nobody wants to know."""


async def _nobody_waits(sender: str, words: str) -> None:
    """Nobody wants to know."""


async def _let_in(source: str, headers: Mapping[str, str], body: bytes) -> None:
    """A token is enough."""


class Webhooks:
    """The webhook endpoint.

    accept:    stores alerts and returns what each was.
    keep:      keeps a body that was not understood, whole or in part.
    everybody: what a source must show that has no credentials of its own.
    own:       the credentials of those that have, by `sender` or `sender/name`.
    now:       ms since the epoch.
    parser_of: how the bodies of a source are read; raises BadPayload where there is no such sender.
    unproven:  the room for bodies that are read to see by their signature whose they are.
    gates:     by sender, what holds its bodies to more than a token before they are read.
    `on_taken` and `on_refused` are told whose webhook was answered with 2xx, and whose with 4xx; `on_oversized`, and only
    it, of those over a limit. It, accept and keep raise StoreUnavailable: then the sender is to try again.
    """

    def __init__(
        self,
        accept: Accept,
        keep: Keep,
        max_body_bytes: int,
        *,
        everybody: Credentials,
        own: Callable[[], Mapping[str, Credentials]],
        now: Callable[[], int],
        gates: Mapping[str, Gate] = MappingProxyType({}),
        unproven: Room = NO_END,
        on_taken: Callable[[str], None] = _nobody,
        on_refused: OnRefused = _nobody,
        on_oversized: OnOversized = _nobody_waits,
        parser_of: Callable[[str], Parser] = find_parser,
    ) -> None:
        self._accept = accept
        self._keep = keep
        self._on_taken = on_taken
        self._on_refused = on_refused
        self._on_oversized = on_oversized
        self._everybody = everybody
        self._own = own
        self._now = now
        self._parser_of = parser_of
        self._gates = gates
        self._max_body_bytes = max_body_bytes
        self._unproven = unproven
        self._log = structlog.get_logger()

    @access(Access.SENDER)
    async def post(self, request: web.Request) -> web.Response:
        """Answer one webhook."""
        sender = request.match_info["sender"]
        name = request.match_info.get("name", "")
        if not _NAME.fullmatch(sender):  # an encoded slash would make it somebody's `sender/name`
            malformed = _refusal(404, "a sender is a-z, 0-9, _ and -, at most 64")
            return self._answered("", await self._refusal_of(request, "", "") or malformed)
        refusal = await self._refusal_of(request, sender, name)
        if refusal is not None:
            return self._answered(sender, refusal)
        source = f"{sender}/{name}" if name else sender
        parse = self._parser_or_refusal(sender, name, source)
        if isinstance(parse, web.Response):
            return self._answered(sender, parse)
        content_type = header(request.headers, "Content-Type")
        body = b""
        try:
            try:
                body = await read_body(request, self._max_body_bytes)
                await self._gates.get(sender, _let_in)(source, request.headers, body)
                # others are not to wait for one large body
                payload = (
                    await asyncio.to_thread(parse, body, request.headers, source)
                    if len(body) > _LARGE
                    else parse(body, request.headers, source)
                )
            except BadPayload as error:
                await self._tell_of(source, error)
                if error.status == 400:
                    # what cannot be decompressed is kept as it came
                    whole = body or await read_raw(request, self._max_body_bytes)
                    await self._keep(source, whole, content_type, 400, error.reason, read_headers(request.headers))
                return self._answered(sender, _refusal(error.status, error.reason))
            self._report(source, sender, payload)
            outcomes = await self._accept(payload.alerts) if payload.alerts or not payload.skipped else ()
            if payload.skipped:
                what = f"{len(payload.skipped)} of its alerts cannot be used: {payload.skipped[0].reason}"
                status = 202 if payload.alerts else 400
                await self._keep(source, body, content_type, status, what, read_headers(request.headers))
                if not payload.alerts:
                    self._on_refused(source, "400: no usable alert in the payload", known=True)
                    return self._answered(sender, _refusal(400, "no usable alert in the payload", _skipped(payload)))
        except StoreUnavailable as error:
            # the intake says once what is wrong; a line for each webhook of an outage would say nothing more
            self._log.debug("alerts not stored; the sender is asked to retry", source=source, reason=str(error))
            return self._answered(sender, _refusal(503, "not stored, try again"))
        self._on_taken(source)
        counts: dict[str, int] = {}
        for outcome in outcomes:
            counts[outcome.value] = counts.get(outcome.value, 0) + 1
        for word, count in counts.items():
            _received(sender, word).inc(count)
        answer = {"status": "accepted", "alerts": len(outcomes), "outcomes": counts, **_skipped(payload)}
        return self._answered(sender, _answer(202, answer))

    async def _refusal_of(self, request: web.Request, sender: str, name: str) -> web.Response | None:
        """What somebody is answered who may not send as this source; None for who may. Counts by what was shown.

        Who shows nothing is told so before the body is read; only a signature needs the body.
        """
        source = f"{sender}/{name}" if name else sender
        own = self._own().get(source)
        try:
            shown = await self._shown(request, own or self._everybody)
        except BadPayload as error:
            # too large to see whose it is; counted for who has proved before that the name is theirs
            if error.status == 413:
                self._on_refused(source, f"{error.status}: {error.reason}", known=False)
            return _refusal(error.status, error.reason)
        if shown is None:
            if sender in SENDERS and (_NAME.fullmatch(name) if name else sender != CUSTOM):
                # anybody can say a name; but one that alertrouter.yaml says is somebody's, who may be heard once a year
                self._on_refused(source, "401: missing or wrong token", known=own is not None)
            return unauthorized()
        of = source if own else sender if sender in SENDERS else "other"
        for credential in shown:
            _credentials(of, credential).inc()
        return None

    async def _shown(self, request: web.Request, asked: Credentials) -> Sequence[str] | None:
        """The names of what a caller shows, where it is all that is asked for; else None. Raises BadPayload, 413."""
        names: list[str | None] = []
        if has_token_in_query(request):
            return None
        if asked.tokens is not None:
            names.append(token_shown(request.headers, asked.tokens, asked.header))
        if asked.signing is not None and None not in names:
            if not is_signed(asked.signing, request.headers):
                return None
            room = self._unproven if asked.tokens is None else NO_END
            body = await read_raw(request, self._max_body_bytes, room)
            shown = asked.signing, request.headers, body, self._now()
            names.append(await asyncio.to_thread(signer, *shown) if len(body) > _LARGE else signer(*shown))
        found = [name for name in names if name is not None]
        return found if len(found) == len(names) else None

    async def _tell_of(self, source: str, error: BadPayload) -> None:
        self._log.warning("payload not understood", source=source, status=error.status, reason=error.reason)
        if error.status == 413:
            await self._on_oversized(source, error.reason)
        else:
            self._on_refused(source, f"{error.status}: {error.reason}", known=True)

    def _parser_or_refusal(self, sender: str, name: str, source: str) -> Parser | web.Response:
        if name and not _NAME.fullmatch(name):
            return _refusal(404, "a sender's name is a-z, 0-9, _ and -, at most 64")
        try:
            return self._parser_of(source)
        except BadPayload as error:
            # taken out of alertrouter.yaml, perhaps, and still sending: all of that is lost
            if sender == CUSTOM and name:
                self._on_refused(source, f"{error.status}: {error.reason}", known=True)
            return _refusal(error.status, error.reason)

    def _report(self, source: str, sender: str, payload: ParsedPayload) -> None:
        """Count and log what will not become an alert: nothing is left out in silence."""
        if payload.skipped:
            _received(sender, "skipped").inc(len(payload.skipped))
            self._log.warning("alerts skipped", source=source, count=len(payload.skipped), **_skipped(payload))
        if payload.ignored:
            _received(sender, "ignored").inc(len(payload.ignored))
            self._log.info("alerts ignored", source=source, ignored=list(payload.ignored)[:_MOST_SKIPPED_SHOWN])
        if payload.truncated:
            telemetry.ALERTS_TRUNCATED.labels(sender).inc(payload.truncated)
            self._log.warning(
                "the sender cut off alerts; set max_alerts to 0 there", source=source, truncated=payload.truncated
            )

    def _answered(self, sender: str, response: web.Response) -> web.Response:
        _answers(sender if sender in SENDERS else "other", str(response.status)).inc()
        return response


def _skipped(payload: ParsedPayload) -> dict[str, object]:
    shown = [{"alert": skipped.position, "reason": skipped.reason} for skipped in payload.skipped[:_MOST_SKIPPED_SHOWN]]
    return {"skipped": shown} if shown else {}


def _refusal(status: int, reason: str, more: Mapping[str, object] = MappingProxyType({})) -> web.Response:
    return _answer(status, {"error": reason, **more})


def _answer(status: int, members: Mapping[str, object]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(members) + b"\n", content_type="application/json")
