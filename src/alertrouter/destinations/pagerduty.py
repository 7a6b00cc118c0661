"""PagerDuty's Events API v2: what is sent, what the answers mean, and the client that sends it.

The contract is PagerDuty's own text, https://github.com/PagerDuty/developer-docs, folder docs/events-API-v2; below,
its pages are named by file.
"""

from __future__ import annotations

import math
import re
import ssl
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import IntEnum, StrEnum
from itertools import islice
from typing import Any, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from alertrouter import __version__
from alertrouter.alert import CommonEvent, Image, Link
from alertrouter.destinations.fitting import cut, encode, fit, plain, sound
from alertrouter.destinations.names import LastAnswers
from alertrouter.destinations.outgoing import ONLY_PUBLIC, Outgoing, head_of
from alertrouter.enrich import OURS, Enriched
from alertrouter.errors import SettingsInvalid

US_EVENTS_URL = "https://events.pagerduty.com"
EU_EVENTS_URL = "https://events.eu.pagerduty.com"

#: Largest body, in bytes. PagerDuty says "512 KB" (01-Overview.md, "Size Limits") and not whether that is 512,000 or
#: 524,288: the smaller reading, which Alertmanager takes too, is safe under both.
BODY_LIMIT = 512_000
#: Longest `payload.summary`, in code points (02-Trigger-Events.md).
SUMMARY_LIMIT = 1_024
#: Our own bounds where PagerDuty publishes none. They keep everything beside `custom_details` under 300 kB whatever a
#: sender writes, so that trimming the details is always enough to reach `BODY_LIMIT`.
TEXT_LIMIT = 1_024
LINK_TEXT_LIMIT = 255
URL_LIMIT = 4_096
LINKS_LIMIT = 25
IMAGES_LIMIT = 10

#: The member of `custom_details` that names what was cut to fit `BODY_LIMIT`, and the room kept for it in bytes.
TRIMMED = "alertrouter_trimmed"
TRIMMED_BYTES = 2_000

#: The member of `custom_details` that tells the responder what became of the event on its way.
DELIVERY = "alertrouter_delivery"
#: What of ours stays when the sender's details go: who owns it, and what to do.
_KEPT_OF_OURS = ("service", "team", "tier", "priority", "runbook")
#: Longest text in a minimal event, in characters, and the end of its summary.
MINIMAL_LIMIT = 255
MINIMAL_MARK = " [shortened by alertrouter]"

#: The name under which the key is kept that pages go to when PagerDuty refuses their own. No service is called so.
FALLBACK = "pagerduty/fallback"

#: How much of an answer is shown as a reason.
REASON_LIMIT = 500
#: The pause after a 429 without `Retry-After`: PagerDuty suggests tries 30 seconds apart (05-Rate-Limits.md).
THROTTLED_MS = 30_000
#: No `Retry-After` is believed beyond this.
RETRY_AFTER_LIMIT_MS = 600_000


# --- what is sent ----------------------------------------------------------------------------------------------------


class EventAction(StrEnum):
    """What an event asks of PagerDuty."""

    TRIGGER = "trigger"
    ACKNOWLEDGE = "acknowledge"
    RESOLVE = "resolve"


class Rung(IntEnum):
    """How much of the alert a trigger shows. What PagerDuty refuses on one rung is sent on the next."""

    WHOLE = 0
    BARE = 1  # nothing that the sender wrote at will: no details, no links
    MINIMAL = 2  # what PagerDuty demands, in plain ASCII


def build_event(
    action: EventAction,
    routing_key: str,
    dedup_key: str,
    enriched: Enriched | None,
    rung: Rung = Rung.WHOLE,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The Events API v2 body, as plain JSON data that PagerDuty accepts whatever the alert holds.

    An acknowledge or a resolve names the alert and nothing else, so it needs no `enriched`; a trigger without one is a
    ValueError. What the sender left empty or unusable (a time without zone, a link that is no URL) is left out, what
    is too long is cut, and lone surrogates become U+FFFD.

    rung:   how much is shown. The dedup_key stays as it is on every one: under another, no resolve would close it.
    notes:  what the responder is told about the way here, in `custom_details.alertrouter_delivery`; the minimal event
            has no room for them.
    """
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": action.value,
        "dedup_key": sound(dedup_key),
    }
    if action is not EventAction.TRIGGER:
        return event
    if enriched is None:
        raise ValueError("a trigger needs the alert it shows")
    if rung is Rung.MINIMAL:
        event["payload"] = _minimal(enriched.event, dedup_key)
        return event
    shown = enriched.event
    details = plain(shown.custom_details) if rung is Rung.WHOLE else _ours(shown.custom_details)
    if notes:
        details[DELIVERY] = [cut(note, TEXT_LIMIT) for note in notes]
    optional = {
        "timestamp": _timestamp(shown.timestamp),
        "component": cut(shown.component, TEXT_LIMIT),
        "group": cut(shown.group, TEXT_LIMIT),
        "class": cut(shown.class_, TEXT_LIMIT),
    }
    event["payload"] = {
        "summary": cut(shown.summary, SUMMARY_LIMIT) or cut(f"Alert {dedup_key}", SUMMARY_LIMIT),
        "source": cut(shown.source, TEXT_LIMIT) or "unknown",
        "severity": shown.severity.value,
        **{name: text for name, text in optional.items() if text},
        "custom_details": details,
    }
    if rung is Rung.WHOLE and (links := list(islice(filter(None, map(_link, enriched.links)), LINKS_LIMIT))):
        event["links"] = links
    if rung is Rung.WHOLE and (images := list(islice(filter(None, map(_image, enriched.images)), IMAGES_LIMIT))):
        event["images"] = images
    if client := cut(enriched.client, TEXT_LIMIT):
        event["client"] = client
    if client_url := web_url(enriched.client_url):
        event["client_url"] = client_url
    return event


def encode_event(event: Mapping[str, Any], limit: int = BODY_LIMIT) -> bytes:
    """The event of `build_event` as JSON of at most `limit` bytes, which is to be 300 kB or more.

    Over the limit, the largest details are cut or left out, small ones (what people route and search by) are kept, and
    `custom_details.alertrouter_trimmed` lists the names of those that are not whole any more.
    """
    body = encode(event)
    if len(body) <= limit:
        return body
    payload = event["payload"]
    details = payload["custom_details"]
    beside_details = len(body) - len(encode(details))
    kept = fit(details, limit - beside_details - TRIMMED_BYTES) or {}
    names = [name for name, value in details.items() if name not in kept or kept[name] != value]
    kept[TRIMMED] = fit(names, TRIMMED_BYTES - len(TRIMMED) - 10)  # 10: quotes, colon, comma and braces around it
    return encode({**event, "payload": {**payload, "custom_details": kept}})


def encode_change(event: Mapping[str, Any], routing_key: str, limit: int = BODY_LIMIT) -> bytes:
    """A change event as its sender wrote it, by another routing key and within PagerDuty's limits.

    https://developer.pagerduty.com/docs/send-change-event. Details that make it larger than `limit` bytes are left out.
    """
    payload = event["payload"]
    texts = {name: cut(str(payload[name]), TEXT_LIMIT) for name in ("summary", "source") if payload.get(name)}
    timestamp = _timestamp(str(payload.get("timestamp") or "").replace("+00:00Z", "Z"))
    sent = {**texts, **({"timestamp": timestamp} if timestamp else {})}
    details = payload.get("custom_details")
    named = event.get("links")
    links = [link for link in map(_change_link, named if isinstance(named, list) else ()) if link][:LINKS_LIMIT]
    whole = {"routing_key": routing_key, "payload": sent, **({"links": links} if links else {})}
    if not isinstance(details, Mapping):
        return encode(whole)
    body = encode({**whole, "payload": {**sent, "custom_details": plain(details)}})
    return body if len(body) <= limit else encode({**whole, "payload": {**sent, "custom_details": {TRIMMED: True}}})


def _change_link(link: Any) -> dict[str, str] | None:
    known = isinstance(link, Mapping) and isinstance(link.get("href"), str)
    return _link(Link(link["href"], str(link.get("text") or ""))) if known else None


def _ours(details: Mapping[str, Any]) -> dict[str, Any]:
    """The few details of ours that a responder cannot do without."""
    ours = details.get(OURS)
    kept = {name: ours[name] for name in _KEPT_OF_OURS if name in ours} if isinstance(ours, Mapping) else {}
    texts = {name: cut(str(value), MINIMAL_LIMIT) for name, value in kept.items()}
    return {OURS: texts} if texts else {}


def _minimal(shown: CommonEvent, dedup_key: str) -> dict[str, Any]:
    """The payload that leaves least to object to."""
    summary = _ascii(shown.summary) or _ascii(f"Alert {dedup_key}")
    return {
        "summary": summary[: MINIMAL_LIMIT - len(MINIMAL_MARK)] + MINIMAL_MARK,
        "source": _ascii(shown.source)[:MINIMAL_LIMIT] or "unknown",
        "severity": shown.severity.value,
        "custom_details": {},
    }


def _ascii(text: str) -> str:
    """One line of printable ASCII; letters lose their accents, and what has no ASCII form is left out."""
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join("".join(char if char.isprintable() else " " for char in folded).split())


def web_url(text: str) -> str:
    """`text` as a URL that a browser can follow and RFC 3986 allows: http or https, with a host. "" where it is none.

    Characters a URL may not hold are percent-encoded, because people do write blanks and umlauts into links. A URL
    with a user or password is none: everyone who sees the incident would see them.
    """
    try:
        parts = urlsplit(sound(text).strip())
        authority = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not _AUTHORITY.fullmatch(authority):
        return ""
    path, query, fragment = (_NOT_IN_URL.sub(_percent, part) for part in (parts.path, parts.query, parts.fragment))
    url = urlunsplit((parts.scheme, authority, path, query, fragment))
    return url if len(url) <= URL_LIMIT else ""


_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|\w[\w.-]*)(:[0-9]{0,5})?", re.ASCII)
_NOT_IN_URL = re.compile(r"%(?![0-9A-Fa-f]{2})|[^\w.~:/?@!$&'()*+,;=%-]", re.ASCII)


def _percent(match: re.Match[str]) -> str:
    return quote(match[0], safe="")


def _link(link: Link) -> dict[str, str] | None:
    href = web_url(link.href)
    if not href:
        return None
    text = cut(link.text, LINK_TEXT_LIMIT)
    return {"href": href, "text": text} if text else {"href": href}


def _image(image: Image) -> dict[str, str] | None:
    """PagerDuty shows images from https addresses only."""
    src = web_url(image.src)
    if not src.startswith("https://"):
        return None
    optional = {"href": web_url(image.href), "alt": cut(image.alt, LINK_TEXT_LIMIT)}
    return {"src": src, **{name: text for name, text in optional.items() if text}}


def _timestamp(text: str) -> str:
    """The instant in RFC 3339, as it was written where it was; "" for what is no instant, or is a sender's zero value."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or moment.year <= 1970:
            return ""
        return text if _RFC3339.fullmatch(text) else moment.astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return ""


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


# --- what the answers mean -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivered:
    """PagerDuty queued the event. `dedup_key` is the one it named; "" where its answer could not be read."""

    dedup_key: str


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Not delivered, as far as we know.

    retry_after_ms:  how long PagerDuty wants this routing key left alone; None where it said nothing.
    ambiguous:       the event was sent and no definite answer came, so PagerDuty may have taken it, or may yet.
    throttled:       it takes nothing by this routing key for now, whatever the event.
    """

    reason: str
    retry_after_ms: int | None
    ambiguous: bool
    throttled: bool = False


class Objection(StrEnum):
    """What PagerDuty refuses an event for, as far as its answer says."""

    SIZE = "size"
    KEY = "key"
    CONTENT = "content"


@dataclass(frozen=True, slots=True)
class Refused:
    """PagerDuty will never take this event as it is. `reason` is in its own words, at most 500 characters."""

    status: int
    reason: str
    objection: Objection


Outcome = Delivered | TryAgain | Refused


class _Answer(msgspec.Struct):
    """PagerDuty's answer body: `dedup_key` in a good one, `message` and perhaps `errors` in a bad one."""

    message: str = ""
    errors: list[str] | None = None
    dedup_key: str = ""


def classify(status: int, headers: Mapping[str, str], body: bytes, now: int, secret: str = "") -> Outcome:
    """What an HTTP answer means for the event that was sent.

    now:     ms since the epoch, for a `Retry-After` that is a date.
    secret:  the routing key, blanked out of every reason in case something on the way echoes what we sent.

    | status          |           | ambiguous                                                                      |
    | 202             | delivered | the only answer that counts, whatever its body                                 |
    | other 2xx       | again     | yes: something on the way answered, PagerDuty may have heard it too            |
    | 3xx             | again     | no: never followed, it would hand the routing key to someone else              |
    | 408, 429        | again     | no: not taken                                                                  |
    | 413             | refused   | for its size                                                                   |
    | 401, 403, 404   | refused   | for its key                                                                    |
    | other 4xx       | refused   | for its content; a 400 for its key or its size where its words say so          |
    | 500, 503        | again     | no: PagerDuty's own failure, over and answered; it asks for the event again    |
    | other 5xx, rest | again     | yes: a gateway gave up waiting (502, 504, 52x); what is behind it may go on    |

    PagerDuty's own table is in 01-Overview.md, "Response Codes & Retry Logic"; it knows 202, 400, 429 and 5xx.
    """
    if status == 202:
        answer = _decode(body)
        return Delivered(answer.dedup_key if answer else "")
    words = _words(body)
    reason = _tidy(words, secret)
    if 400 <= status < 500 and status not in (408, 429):
        return Refused(status, reason or f"HTTP {status} without a reason", _objection(status, words))
    retry_after_ms = _retry_after_ms(headers.get("Retry-After", ""), now)
    if status == 429 and retry_after_ms is None:
        retry_after_ms = THROTTLED_MS
    definite = 300 <= status < 500 or status in (500, 503)
    words = f"HTTP {status}: {reason}" if reason else f"HTTP {status}"
    return TryAgain(words, retry_after_ms, not definite, throttled=status == 429)


def _objection(status: int, words: str) -> Objection:
    """The key first: whatever else is wrong, nothing gets through with a wrong one."""
    match status:
        case 413:
            return Objection.SIZE
        case 401 | 403 | 404:
            return Objection.KEY
        case 400 if _ABOUT_THE_KEY.search(words):
            return Objection.KEY
        case 400 if _ABOUT_SIZE.search(words):
            return Objection.SIZE
        case _:
            return Objection.CONTENT


#: PagerDuty writes 'routing_key' or routing key. "routing_key" in double quotes is our own event, echoed.
_ABOUT_THE_KEY = re.compile(r"(?<![\"\w])(routing|integration|service)[ _-]key\b(?!\")", re.IGNORECASE)
_ABOUT_SIZE = re.compile(r"\b(size|too (large|big|long)|exceed(s|ed)?|512 ?KB)\b", re.IGNORECASE)


def _decode(body: bytes) -> _Answer | None:
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _words(body: bytes) -> str:
    """What an error answer says: message and errors where it has PagerDuty's shape, else its text."""
    answer = _decode(body)
    if answer and (answer.message or answer.errors):
        return ": ".join(part for part in (answer.message, "; ".join(answer.errors or ())) if part)
    return body.decode(errors="replace")


def _tidy(text: str, secret: str) -> str:
    """One printable line of at most `REASON_LIMIT` characters. The secret goes first, lest a cut leave half of it."""
    if secret:
        text = text.replace(secret, "[routing key]")
    text = text[: 8 * REASON_LIMIT]
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= REASON_LIMIT else line[: REASON_LIMIT - 1] + "…"


def _retry_after_ms(text: str, now: int) -> int | None:
    """`Retry-After` in either form of RFC 9110 (seconds, HTTP date), from 0 to ten minutes; None for anything else."""
    if text.isascii() and text.isdigit():
        return min(int(text.lstrip("0")[:10] or 0) * 1_000, RETRY_AFTER_LIMIT_MS)
    try:
        until = parsedate_to_datetime(text)
        milliseconds = int((until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() * 1_000)
    except (ValueError, OverflowError):
        return None
    return min(max(milliseconds - now, 0), RETRY_AFTER_LIMIT_MS)


# --- the client ------------------------------------------------------------------------------------------------------


def enqueue_url(base_url: str, allowed: Outgoing = ONLY_PUBLIC) -> URL:
    """Where events are posted, given a base address without path.

    SettingsInvalid for anything but https, except on loopback (the sandbox) and where it is listed: the routing key
    travels in the body.
    """
    setting = "the PagerDuty events address (ALERTROUTER_PAGERDUTY_EVENTS_URL)"
    url = allowed.check(base_url, setting, example=f"{US_EVENTS_URL} or {EU_EVENTS_URL}")
    if url.path not in ("", "/") or url.query_string or url.fragment or url.user or url.password:
        raise SettingsInvalid(f"{setting} is more than scheme, host and port; set it to {url.origin()}")
    return url.origin() / "v2" / "enqueue"


def wall_clock() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class PagerDuty(Protocol):
    """Whoever takes events: PagerDuty by its client, or something that stands in for it."""

    async def send(self, body: bytes) -> Outcome:
        """Post one encoded event. Nothing is raised for what becomes of it."""


class PagerDutyClient:
    """Holds the connections to the Events API. Make it inside a running event loop; `close` it at the end.

    connections:  how many sends may be under way at once. Have no more than that: waiting for a free connection
                  counts as connecting.
    connect_s:    longest wait for a connection, in seconds. Shorter than `total_s`, so that running out of the total
                  always means that the event was on its way: an ambiguous end.
    total_s:      longest send, in seconds, from the call to the end of the answer. Leases are measured by it.
    allowed:      what may be called.
    resolver:     who answers for names; None for the system's. The last answer stands in while it fails.

    The certificate is always verified, against the system's authorities or those in the file that OpenSSL's own
    variable SSL_CERT_FILE names.
    """

    def __init__(
        self,
        base_url: str = US_EVENTS_URL,
        *,
        connections: int = 64,
        connect_s: float = 3.0,
        total_s: float = 10.0,
        clock: Callable[[], int] = wall_clock,
        allowed: Outgoing = ONLY_PUBLIC,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._url = enqueue_url(base_url, allowed)
        self._changes_url = self._url.parent / "change" / "enqueue"
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=allowed.connector(
                self._url,
                resolver=LastAnswers(resolver or aiohttp.ThreadedResolver(), time.monotonic),
                limit=connections,
                ssl=ssl.create_default_context() if self._url.scheme == "https" else True,
            ),
            proxy=allowed.proxy_for(self._url),
            # No cookies and one prebuilt URL: about a tenth more requests per second.
            cookie_jar=aiohttp.DummyCookieJar(),
            # Without the infinite threshold aiohttp rounds time-outs up to whole seconds, past what a lease allows.
            timeout=aiohttp.ClientTimeout(total=total_s, connect=connect_s, ceil_threshold=math.inf),
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"alertrouter/{__version__}",
            },
            auto_decompress=False,
            trust_env=False,
        )

    async def send(self, body: bytes) -> Outcome:
        """Post one encoded event. Whatever the network does comes back as an outcome; nothing is raised for it."""
        return await self._post(self._url, body)

    async def send_change(self, body: bytes) -> Outcome:
        """Post one encoded change event."""
        return await self._post(self._changes_url, body)

    async def _post(self, url: URL, body: bytes) -> Outcome:
        try:
            async with self._session.post(url, data=body, allow_redirects=False) as response:
                answer = await head_of(response.content)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return TryAgain(_tidy(f"no connection: {_name(error)}", _routing_key(body)), None, ambiguous=False)
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            return TryAgain(_tidy(f"no answer: {_name(error)}", _routing_key(body)), None, ambiguous=True)
        secret = "" if response.status == 202 else _routing_key(body)
        return classify(response.status, response.headers, answer, self._clock(), secret)

    async def close(self) -> None:
        """End every connection; what is under way ends as ambiguous."""
        await self._session.close()


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


class _Keyed(msgspec.Struct):
    routing_key: str = ""

    def __repr__(self) -> str:
        return "_Keyed()"  # it holds nothing but a secret


def _routing_key(body: bytes) -> str:
    """The secret in what we sent. Read only when something went wrong."""
    try:
        return msgspec.json.decode(body, type=_Keyed).routing_key
    except msgspec.DecodeError:
        return ""
