"""Broken bodies through all of a running alertrouter: sockets, HTTP, authentication, Redis, rules, worker, PagerDuty.

Several connections, several requests under way on each. Each connection is a sender of its own,
`/webhooks/<sender>/fuzz-<connection>`, and a routing key of its own for `/v2/enqueue` and `/v2/change/enqueue`: so what
it sends stays in order, and no two share an alert.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from textwrap import dedent, indent
from time import monotonic
from urllib.parse import urlsplit

import msgspec
import uvloop

from alertrouter.alarms import SELF
from alertrouter.alert import Status
from alertrouter.errors import BadPayload
from alertrouter.record import Outcome, Record, State
from alertrouter.sources import pagerduty
from alertrouter.store.connect import connect
from alertrouter.store.store import AlertStore
from tests.custom_senders import ACME
from tests.fuzz.bodies import BODIES, KEY, MADE, parse
from tests.fuzz.inputs import Input, inputs
from tests.fuzz.mutations import FRAGMENTS
from tests.rig.pagerduty import PagerDutyProcess
from tests.rig.servers import RedisServer, Router, write_rules
from tests.waiting import until

TOKEN = "fuzz-token"
CONNECTIONS = 8
#: Requests that are under way on one connection.
_PIPELINED = 16
#: Bodies of one pair of servers: then Redis begins anew, lest its memory be the bound.
ROUND = 50_000
_REFUSALS = frozenset((400, 401, 413, 415))
#: Of one in so many bodies for PagerDuty's own endpoint, the one for changes is asked.
_CHANGES_ONE_IN = 8
#: What fits into the router's bound before it is decompressed, and not after.
_BOMB = 64 * 1024 * 1024

_MOST_FAULTS = 10


@dataclass(frozen=True, slots=True)
class Request:
    """One POST as bytes. ids: the alerts that it is about if it is taken; None where it has to be refused.

    number:  of its input.
    names:   what begins the id of an alert that has no name, and gets one with the answer; "" where all have theirs.
    is_change:  it may be put off with 429.
    """

    number: int
    data: bytes
    ids: tuple[str, ...] | None
    names: str = ""
    is_change: bool = False


@dataclass(slots=True)
class Found:
    """What came of a run. faults: what was promised and not kept, with the number of the input where there is one."""

    posted: int = 0
    oddities: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: set[str] = field(default_factory=set)
    alerts: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """Put one down; what follows from the first ones says no more."""
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(text)


class _Answer(msgspec.Struct):
    alerts: int = 0
    dedup_key: str = ""


_decode = msgspec.json.Decoder(_Answer).decode


def request_of(chance: random.Random, number: int, given: Input, connection: int) -> Request:
    """A body as one of its senders would post it, and at times as none would."""
    is_event = given.what == "pagerduty"
    is_change = is_event and chance.randrange(_CHANGES_ONE_IN) == 0
    source = f"{given.what.partition('/')[0]}/fuzz-{connection}"
    if is_event:
        given = replace(given, data=given.data.replace(KEY.encode(), _key_of(connection).encode()))
    path = "/v2/change/enqueue" if is_change else "/v2/enqueue" if is_event else f"/webhooks/{source}"
    ids = _ids_of_event(given, source, connection, is_change=is_change) if is_event else _ids(given, source)
    body, encoding, broken = _packed(chance, given.data)
    token = TOKEN
    draw = chance.random()
    if draw < 0.01 and not is_event:
        token, broken = chance.choice(("", "x", "fuzz-tokem", "fuzz-token ,", "\u2028" * 9)), True
    headers = {"Host": "fuzz", "Authorization": f"Bearer {token}", **given.headers}
    if encoding:
        headers["Content-Encoding"] = encoding
    is_chunked = draw > 0.95
    headers |= {"Transfer-Encoding": "chunked"} if is_chunked else {"Content-Length": str(len(body))}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    sent = b"".join(_chunks(chance, body)) if is_chunked else body
    data = head.encode("utf-8", "surrogateescape") + b"\r\n" + sent
    names = f"{source}:" if ids == (f"{source}:{MADE}",) else ""
    return Request(number, data, None if broken else ids, names, is_change)


def _ids(given: Input, source: str) -> tuple[str, ...] | None:
    outcome = parse(given, source)
    if isinstance(outcome, Exception) or (outcome.skipped and not outcome.alerts):
        return None
    return tuple(alert.id for alert in outcome.alerts)


def _ids_of_event(given: Input, source: str, connection: int, *, is_change: bool) -> tuple[str, ...] | None:
    try:
        event = pagerduty.read_event(given.data)
        if pagerduty.routing_key_of(event, given.headers) != _key_of(connection):
            return None
        if is_change:
            pagerduty.read_change(event, source)
            return ()
    except BadPayload:
        return None
    return _ids(given, source)


def _key_of(connection: int) -> str:
    return "lmnopqrs"[connection] * len(KEY)


def _packed(chance: random.Random, body: bytes) -> tuple[bytes, str, bool]:
    """The body in some encoding, the encoding's name, and whether it cannot be undone."""
    draw = chance.random()
    if draw < 0.88:
        return body, "", False
    if draw < 0.91:
        return gzip.compress(body, 1, mtime=0), chance.choice(("gzip", "GZIP", "x-gzip")), False
    if draw < 0.93:
        return zlib.compress(body, 1), "deflate", False
    if draw < 0.95:
        return body, chance.choice(("br", "zstd", "gzip, gzip", "compress", "\u00e9")), True
    if draw < 0.9502:
        return _bomb(), "gzip", True
    packed = gzip.compress(body, 1, mtime=0)
    if draw < 0.97:
        return packed[: int(chance.random() * (len(packed) - 8))], "gzip", True
    at = 10 + int(chance.random() * (len(packed) - 18))
    damaged = packed[:at] + bytes((packed[at] ^ 0xFF,)) + packed[at + 1 :]
    return damaged, "gzip", not _inflates_to(damaged, body)


def _inflates_to(packed: bytes, body: bytes) -> bool:
    try:
        return gzip.decompress(packed) == body
    except (OSError, EOFError, zlib.error):
        return False


@cache
def _bomb() -> bytes:
    return gzip.compress(b"[" + b" " * _BOMB + b"]", 9, mtime=0)


def _chunks(chance: random.Random, body: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        size = 1 + int(chance.random() ** 3 * len(body))
        chunk = body[at : at + size]
        yield b"%x%s\r\n%s\r\n" % (len(chunk), chance.choice((b"", b";a=b", b';x="y"')), chunk)
        at += size
    yield b"0\r\n\r\n"


_GOOD = b"POST /webhooks/alertmanager HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
#: What no client sends: each on a connection of its own. An answer below 500, or none and the end of the connection.
ODDITIES: tuple[bytes, ...] = (
    _GOOD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    _GOOD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    _GOOD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    _GOOD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    _GOOD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}",
    _GOOD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
    _GOOD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n",
    _GOOD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
    _GOOD + b"Content-Length: -1\r\n\r\n{}",
    _GOOD + b"Content-Length: 99999999999999999999\r\n\r\n{}",
    _GOOD + b"Content-Length: 20000000\r\n\r\n{}",
    _GOOD + b"Content-Length: 0x2\r\n\r\n{}",
    _GOOD + b"Content-Length: 1000\r\n\r\n{",
    _GOOD + b"Content-Length: 2\r\nX: a\x00b\r\n\r\n{}",
    _GOOD + b"Content-Length: 2\r\n folded: yes\r\n\r\n{}",
    _GOOD + b"Content-Length : 2\r\n\r\n{}",
    _GOOD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    _GOOD + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}",
    _GOOD + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    _GOOD + b"".join(b"X-%d: y\r\n" % number for number in range(5_000)) + b"\r\n",
    _GOOD.replace(b"HTTP/1.1", b"HTTP/9.9") + b"\r\n",
    _GOOD.replace(b"/webhooks/alertmanager", b"/webhooks/\xff%00%2e%2e/") + b"Content-Length: 2\r\n\r\n{}",
    _GOOD.replace(b"/webhooks/alertmanager", b"/webhooks/alertmanager/" + b"a" * 65) + b"Content-Length: 2\r\n\r\n{}",
    _GOOD.replace(b"/webhooks/alertmanager", b"/" + b"a" * 20_000) + b"\r\n",
    _GOOD.replace(b"/webhooks/alertmanager", b"http://[::1/webhooks") + b"Content-Length: 2\r\n\r\n{}",
    _GOOD.replace(b"POST", b"PRI *") + b"\r\nSM\r\n\r\n",
    _GOOD.replace(b"Bearer", b"Basic") + b"Content-Length: 2\r\n\r\n{}",
    _GOOD.replace(b"Host: x\r\n", b"Host: x\r\nHost: y\r\n") + b"Content-Length: 2\r\n\r\n{}",
    _GOOD.replace(b"\r\n", b"\n") + b"Content-Length: 2\n\n{}",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    b"\x00" * 1_000,
    b"GET\r\n\r\n",
    b"",
)


def make_oddity(chance: random.Random) -> bytes:
    """One of them, or a mutation of one."""
    odd = chance.choice(ODDITIES)
    for _ in range(chance.randrange(3)):
        at = int(chance.random() * min(len(odd) + 1, 400))
        odd = odd[:at] + chance.choice(FRAGMENTS) + odd[at + int(chance.random() * 4) :]
    return odd


class Connection:
    """One connection of keep-alive to the router, opened again whenever it is closed."""

    def __init__(self, url: str, found: Found) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._found = found
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, requests: Sequence[Request]) -> None:
        """Send all of them, then read the answers; what got none is sent again, alone."""
        waiting = list(requests)
        tries = 0
        while waiting:
            tries += 1
            reader, writer = await self._connected()
            writer.write(b"".join(request.data for request in waiting))
            answered = await self._read(reader, waiting)
            if answered:
                tries = 0
            elif tries > 3:
                self._found.fault(f"input {waiting[0].number}: no answer")
                answered = 1
            waiting = waiting[answered:]
            if waiting:
                await self.close()

    async def _read(self, reader: asyncio.StreamReader, waiting: Sequence[Request]) -> int:
        """How many were answered before the connection ended."""
        for answered, request in enumerate(waiting):
            try:
                async with asyncio.timeout(60):
                    head = await reader.readuntil(b"\r\n\r\n")
                    body = await reader.readexactly(_length(head))
            except (asyncio.IncompleteReadError, OSError):  # a TimeoutError is an OSError
                return answered
            self._judge(request, int(head[9:12]), body)
        return len(waiting)

    def _judge(self, request: Request, status: int, body: bytes) -> None:
        found = self._found
        found.posted += 1
        found.statuses[status] += 1
        if status == 202:
            answer, ids = _decode(body), request.ids
            if request.names and answer.dedup_key:
                ids = (request.names + answer.dedup_key,)
            if ids is None:
                found.fault(f"input {request.number}: taken, and it has to be refused")
            elif (answer.alerts or bool(answer.dedup_key)) != len(ids):
                found.fault(f"input {request.number}: {len(ids)} alerts were sent, {body!r} came back")
            else:
                found.accepted.update(ids)
                found.alerts += len(ids)
        elif status == 429 and request.is_change:
            pass
        elif status not in _REFUSALS and not (status == 403 and not request.ids):  # what SNS asks to be confirmed
            found.fault(f"input {request.number}: answered {status}, {body[:200]!r}")
        elif request.ids is not None and status != 413:
            found.fault(f"input {request.number}: refused with {status}, {body[:200]!r}, and it is fine")

    async def send_odd(self, odd: bytes) -> None:
        """What is no HTTP, on a connection of its own; half of it is closed, so that nobody waits for the rest."""
        reader, writer = await asyncio.open_connection(*self._address)
        head = b""
        try:
            async with asyncio.timeout(20):
                writer.write(odd)
                writer.write_eof()
                head = await reader.read(12)
                await reader.read()
        except TimeoutError:
            self._found.fault(f"neither answered nor closed: {odd[:300]!r}")
        except OSError:  # it was closed in the middle of our writing
            pass
        finally:
            writer.close()
        self._found.oddities += 1
        if head[9:10] == b"5":
            self._found.fault(f"answered {head!r}: {odd[:300]!r}")

    async def close(self) -> None:
        """The next request gets a connection of its own."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address, limit=2**20)
        return self._streams


def _length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"content-length:")
    return int(lower[at + 15 : lower.index(b"\r", at)]) if at >= 0 else 0


async def fuzz(folder: Path, redis_server: str, seed: int, first: int, count: int) -> Found:
    """Post inputs `first` to `first + count` of the seed, and see where all that was accepted got to."""
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(PagerDutyProcess())
        redis = await stack.enter_async_context(RedisServer(redis_server, folder / "redis"))
        settings = {"ALERTROUTER_WEBHOOK_TOKENS": TOKEN, "ALERTROUTER_LOG_LEVEL": "error"}
        settings |= {f"FUZZ_KEY_{connection}": _key_of(connection) for connection in range(CONNECTIONS)}
        rules = write_rules(folder / "rules")
        (rules / "alertrouter.yaml").write_text(_senders())
        router = await stack.enter_async_context(Router(folder / "router", rules, fake.url, redis.url, **settings))
        found = Found()
        await asyncio.gather(
            *(_send(router.url, found, seed, first, count, connection) for connection in range(CONNECTIONS))
        )
        await until(lambda: _is_drained(router), 600)
        await _check_end(found, redis.url, fake)
        found.faults += _logged(router.log.read_text())
        if await router.end() != 0:
            found.fault("the router did not end with 0")
        return found


def post(folder: Path, redis_server: str, seed: int, first: int, count: int) -> Found:
    """As `fuzz`, for whoever has no event loop."""
    return uvloop.run(fuzz(folder, redis_server, seed, first, count))


def _senders() -> str:
    """The alertrouter.yaml that makes a sender of each connection."""
    fields = indent(dedent(ACME).strip(), " " * 6)
    lines = ["sources:"]
    lines += [f"  custom/fuzz-{connection}:\n    fields:\n{fields}" for connection in range(CONNECTIONS)]
    lines += ["integrations:"]
    for connection in range(CONNECTIONS):
        lines.append(f"  fuzz-{connection}: {{routing_key: {{env: FUZZ_KEY_{connection}}}, service: payment-service}}")
    return "\n".join(lines) + "\n"


def _logged(log: str) -> list[str]:
    """Each traceback, as a line of ours or as it is."""
    lines = log.splitlines()
    at = [number for number, line in enumerate(lines) if "Traceback" in line]
    return [f"the router logged {' | '.join(lines[number : number + 40])[:4000]}" for number in at[:_MOST_FAULTS]]


async def _send(url: str, found: Found, seed: int, first: int, count: int, connection: int) -> None:
    """One connection's share of the inputs."""
    wire = Connection(url, found)
    chance = random.Random(f"wire/{seed}/{first}/{connection}")
    requests: list[Request] = []
    begin, end = (first + count * share // CONNECTIONS for share in (connection, connection + 1))
    for number, given in inputs(BODIES, seed, begin, end - begin):
        requests.append(request_of(chance, number, given, connection))
        if len(requests) == _PIPELINED:
            await wire.post(requests)
            requests.clear()
            if chance.random() < 0.1:
                await wire.send_odd(make_oddity(chance))
    await wire.post(requests)
    await wire.close()


async def _is_drained(router: Router) -> bool:
    assert router.is_running, f"alertrouter ended: {router.log.read_text()[-2000:]}"
    queues = await router.backlog()
    return bool(queues) and not queues["due"] and not queues["waiting"]


async def _check_end(found: Found, redis_url: str, fake: PagerDutyProcess) -> None:
    """Everything accepted has a record, that is settled; and what the records say PagerDuty has open, it has open."""
    client = connect(redis_url)
    store = AlertStore(client)
    now = await store.time()
    is_open: Counter[str] = Counter()
    for alert_id in sorted(found.accepted):
        record = await store.record(alert_id)
        if record is None:
            found.fault(f"lost: {alert_id!r}")
        elif why := _unsettled(record, now):
            found.fault(f"{why}: {alert_id!r}")
        else:
            opened = (told for told in record.told if told.state in (State.TRIGGERED, State.ACKNOWLEDGED))
            is_open.update(told.dedup_key or record.alert.dedup_key for told in opened)
    for each in await store.letters.page(now):
        if each.letter.kind != "body":
            found.fault(f"dead letter: {each.letter.kind}, {each.letter.reason}, {each.letter.id!r}")
    await client.aclose()
    open_there = Counter(
        each.dedup_key for each in await fake.open_alerts() if not each.dedup_key.startswith(f"{SELF}:")
    )
    for key in sorted(open_there - is_open):
        found.fault(f"open at PagerDuty only: {key!r}")
    for key in sorted(is_open - open_there):
        found.fault(f"open in the record only: {key!r}")
    if refused := (await fake.totals()).get("refused"):
        found.fault(f"PagerDuty refused {refused} events")


def _unsettled(record: Record, now: int) -> str:
    if record.poisoned:
        return "poisoned"
    if record.outcome is Outcome.PENDING and record.hold_until <= now:
        return "still pending"
    if record.outcome is Outcome.DEAD_LETTERED:
        return "dead-lettered"
    is_told = any(told.state is not State.NOTHING for told in record.told)
    if record.status is Status.FIRING and record.outcome is Outcome.DELIVERED and not is_told:
        return "delivered, and to nobody"
    return ""


def post_in_rounds(redis_server: str, seed: int, first: int, count: int, say: Callable[[str], None]) -> list[str]:
    """Post inputs, each `ROUND` of them to servers of their own, and say how far it is; the faults of the first bad round."""
    began, posted, accepted = monotonic(), 0, 0
    statuses: Counter[int] = Counter()
    for begin in range(first, first + count, ROUND):
        some = min(ROUND, first + count - begin)
        with tempfile.TemporaryDirectory(prefix="alertrouter-fuzz-") as name:
            found = post(Path(name), redis_server, seed, begin, some)
        posted, accepted, statuses = posted + found.posted, accepted + found.alerts, statuses + found.statuses
        say(
            f"http: {posted:,} bodies of seed {seed} from {first} on, {dict(sorted(statuses.items()))}, "
            f"{accepted:,} alerts accepted, {len(found.faults)} faults, {monotonic() - began:.0f} s"
        )
        if found.faults:
            return [*found.faults, f"repeat it with\n    make fuzz TARGET=http SEED={seed} FIRST={begin} COUNT={some}"]
    return []
