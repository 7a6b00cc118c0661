"""Where this service may call: hosts that its own settings name, by https, at public addresses.

Rules, alerts and whoever answers for a name cannot lead it elsewhere. Every connection is checked when its socket is made,
by the very address it goes to: nothing is resolved a second time, and an address written as a host is checked as well.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from errno import EACCES
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from alertrouter.errors import SettingsInvalid
from alertrouter.loopback import is_loopback

#: How much of an answer is read.
ANSWER_LIMIT = 65_536
#: How long a name may take at the start.
_RESOLVE_WITHIN_S = 3.0
_SETTING = "ALERTROUTER_OUTGOING_HOSTS"
_HOST = re.compile(r"(?:(https?)://)?([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?/?", re.IGNORECASE)
#: NAT64 (https://www.rfc-editor.org/rfc/rfc6052) and 6to4 lead to the IPv4 address inside.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

#: What Python 3.11 takes for public: IPv4 inside IPv6 as RFC 4291 and 2765 had it, a NAT64 of one's own (RFC 8215), and
#: addresses of a site (RFC 3879).
_NOT_PUBLIC = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "fec0::/10")))

#: Address family, type, protocol, canonical name and address, as getaddrinfo gives them.
_AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What may be called beside the public hosts that settings name.

    listed:  origins such as https://10.1.2.3 or http://proxy.internal:8080; without a port every port.
    proxy:   what everything but loopback is called by; None for no proxy. The environment's is never asked.
    """

    listed: frozenset[str] = frozenset()
    proxy: URL | None = field(default=None, repr=False)

    def check(self, text: str, setting: str, *, example: str = "https://example.org") -> URL:
        """The URL that `setting` names. Raises SettingsInvalid if it must not be called, with what to set.

        Neither message shows more of the URL than its host: what follows may be a secret.
        """
        try:
            url = URL(text.strip())
        except ValueError:
            raise SettingsInvalid(f"{setting} is not a URL; set it to {example}") from None
        host = url.host or ""
        if url.scheme not in ("http", "https") or not host:
            raise SettingsInvalid(f"{setting} is not an http(s) URL; set it to {example}")
        if url.scheme == "http" and not is_loopback(host) and not self.lists(url):
            raise SettingsInvalid(
                f"{setting} is plain http, which shows everything to everyone on the way: set it to "
                f"https://{url.authority}, or, if that way is your own, add http://{host} to {_SETTING} (plain http is for loopback, such as "
                "the sandbox)"
            )
        if _is_address(host) and not self._may_be_at(url, host):
            raise SettingsInvalid(f"{setting}: {_why(host, host)}")
        return url

    def lists(self, url: URL) -> bool:
        """Whether it is among those that ALERTROUTER_OUTGOING_HOSTS names."""
        origin = f"{url.scheme}://{url.host}"
        return origin in self.listed or f"{origin}:{url.port}" in self.listed

    def refuses(self, url: URL) -> str:
        """Why a URL that no setting of ours names must not be called; "" if it may be: rules can only name what is listed."""
        return "" if self.lists(url) else f"{url.host} is not listed; add it to {_SETTING}"

    def proxy_for(self, url: URL) -> URL | None:
        """The proxy that leads to it, if any."""
        return None if is_loopback(url.host or "") else self.proxy

    def connector(self, url: URL, *, resolver: AbstractResolver | None = None, **options: Any) -> aiohttp.TCPConnector:
        """Connections for `url` and nothing else. Make it inside a running event loop."""
        return aiohttp.TCPConnector(socket_factory=self.sockets(url), resolver=resolver, **options)

    def sockets(self, url: URL) -> Callable[[_AddressInfo], socket.socket]:
        """Makes the socket of a connection for `url`, or raises an OSError that says why not."""
        by_proxy = self.proxy_for(url) is not None  # which stands where it stands
        host = url.host or ""

        def open_socket(info: _AddressInfo) -> socket.socket:
            family, kind, protocol, _, address = info
            if not by_proxy and not self._may_be_at(url, str(address[0])):
                raise PermissionError(EACCES, _why(host, str(address[0])))
            return socket.socket(family, kind, protocol)

        return open_socket

    async def blocked(self, url: URL) -> str:
        """What is wrong with the addresses of `url` as its name says now; "" if nothing is, or if it cannot be told."""
        host = url.host or ""
        if self.proxy_for(url) is not None:
            return ""
        try:
            async with asyncio.timeout(_RESOLVE_WITHIN_S):
                found = await asyncio.get_running_loop().getaddrinfo(host, url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # a TimeoutError is an OSError
            return ""
        addresses = [str(each[4][0]) for each in found]
        return next((_why(host, each) for each in addresses if not self._may_be_at(url, each)), "")

    def _may_be_at(self, url: URL, address: str) -> bool:
        if self.lists(url):
            return True
        return is_loopback(address) if is_loopback(url.host or "") else is_public(address)


#: What there is without settings: https, public addresses, and loopback.
ONLY_PUBLIC = Outgoing()


def outgoing(hosts: Iterable[str], proxy: str | None = None) -> Outgoing:
    """From the settings: hosts, host:port or origins; without a scheme https is meant. Raises SettingsInvalid."""
    listed = set()
    for entry in hosts:
        found = _HOST.fullmatch(entry)
        if found is None:
            raise SettingsInvalid(
                f"{_SETTING}: {entry!r} is no host; write chat.example.org or http://proxy.internal:8080"
            )
        scheme, host, port = found.groups()
        scheme = (scheme or "https").lower()
        origin = f"{scheme}://{URL.build(scheme=scheme, host=host.strip('[]')).host}"  # one form for one address
        listed.add(f"{origin}:{port}" if port else origin)
    if proxy is None:
        return Outgoing(frozenset(listed))
    try:
        by = URL(proxy)
    except ValueError:
        by = URL()
    if by.scheme not in ("http", "https") or not by.host:
        raise SettingsInvalid("ALERTROUTER_OUTGOING_PROXY is not an http(s) URL; set it to http://proxy.internal:3128")
    return Outgoing(frozenset(listed), by)


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet, and not of this machine, its network or its cloud's metadata."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour
        if inside is None and address in _NAT64:
            inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inside is not None:
            return is_public(str(inside))
        if any(address in network for network in _NOT_PUBLIC):
            return False
    return address.is_global and not address.is_multicast


async def head_of(content: aiohttp.StreamReader) -> bytes:
    """The head of an answer, or what came of it: the status is known by now, and it decides."""
    answer = bytearray()
    try:
        while len(answer) < ANSWER_LIMIT and (chunk := await content.read(ANSWER_LIMIT - len(answer))):
            answer += chunk
    except (aiohttp.ClientError, OSError):
        pass
    return bytes(answer)


def connect(url: URL, found: Sequence[_AddressInfo], allowed: Outgoing, timeout_s: float) -> socket.socket:
    """A connection to the first of the addresses `found` that may be called and answers. Blocks; raises OSError."""
    open_socket = allowed.sockets(url)
    problem: OSError = OSError(f"{url.host} has no address")
    for info in found:
        try:
            opened = open_socket(info)
        except PermissionError as error:
            problem = error
            continue
        opened.settimeout(timeout_s)
        try:
            opened.connect(info[4])
        except OSError as error:
            opened.close()
            problem = error
        else:
            return opened
    raise problem


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _why(host: str, address: str) -> str:
    what = f"{host} is" if host == address else f"{host} is {address},"
    return f"{what} no public address; if it is yours, add {host} to {_SETTING}"
