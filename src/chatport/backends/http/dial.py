"""From an origin to an open connection: name, TCP (several addresses raced), a proxy's tunnel, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType
from msgspec import Struct

from chatport.backends.http.connection import Connection
from chatport.backends.http.faults import Phase, TimedOut, Unreachable
from chatport.backends.http.proxies import Kind, Proxy
from chatport.backends.http.tunnels import Greeting, NotReached, open_tunnel

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)

RACE_DELAY = 0.25
"""Seconds after which the next address is tried beside the one that does not answer (RFC 8305 §5)."""


class Origin(Struct, frozen=True, kw_only=True):
    """Where connections go: two upstreams with equal origins share a pool."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None = None
    ca_file: Path | None = None
    """PEM file of the authorities that are trusted, instead of the system's."""

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """`host` or `host:port`, as the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def reader(self) -> Proxy | None:
        """The proxy that reads the requests and sends them on, where they don't go through a tunnel."""
        return self.proxy if self.proxy is not None and self.proxy.speaks_http and not self.secure else None

    def target(self, path: str) -> str:
        """What stands in a request's first line: the path, or the whole URL where a proxy reads it."""
        return path if self.reader is None else f"http://{self.authority}{path}"


class Dialer:
    """Opens connections. TLS contexts are costly to make, so each is made once."""

    def __init__(self) -> None:
        self._contexts: dict[Path | None, ssl.SSLContext] = {}

    async def dial(self, origin: Origin, seconds: float) -> Connection:
        """An open connection to the origin. Raises Unreachable, or TimedOut after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await self._dial(origin)
        except TimeoutError as exc:
            raise TimedOut(Phase.CONNECT, seconds) from exc
        except (OSError, UnicodeError) as exc:  # UnicodeError: no such name in the name system's alphabet
            through = f" through the proxy {origin.proxy.host}" if origin.proxy else ""
            raise Unreachable(f"no connection to {origin.authority}{through}: {exc}") from exc

    async def _dial(self, origin: Origin) -> Connection:
        if origin.proxy is None:
            return await self._open(Connection, origin, origin.ca_file)
        if origin.reader is not None:
            return await self._open(Connection, origin.reader, None)
        *others, last = await _destinations(origin, origin.proxy)
        for host in others:
            with suppress(NotReached):
                return await self._through(origin.proxy, host, origin)
        return await self._through(origin.proxy, last, origin)

    async def _open(self, protocol: Callable[[], ProtocolT], hop: Origin | Proxy, ca_file: Path | None) -> ProtocolT:
        """A connection to whoever is next on the way, and TLS with them where they want it."""
        sock = await _connect(hop.host, hop.port)
        try:
            context = self._context(ca_file) if hop.secure else None
            _, opened = await asyncio.get_running_loop().create_connection(
                protocol, sock=sock, ssl=context, server_hostname=hop.host if context else None
            )
        except BaseException:
            sock.close()
            raise
        return opened

    async def _through(self, proxy: Proxy, host: str, origin: Origin) -> Connection:
        """A connection in a tunnel; `host`: the origin's name or one of its addresses, as the proxy is to hear it."""
        greeting = await self._open(partial(Greeting, proxy), proxy, None)
        try:
            await open_tunnel(greeting, host, origin.port)
            if origin.secure:
                await greeting.start_tls(self._context(origin.ca_file), origin.host)
            return greeting.hand_over(Connection())
        except BaseException:
            greeting.transport.abort()
            raise

    def _context(self, ca_file: Path | None) -> ssl.SSLContext:
        context = self._contexts.get(ca_file)
        if context is None:
            context = ssl.create_default_context(cafile=ca_file)
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[ca_file] = context
        return context


async def _connect(host: str, port: int) -> socket.socket:
    """A connected socket: the addresses of the name in the system's order, raced."""
    found = await addresses(host, port)
    sock = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=RACE_DELAY, interleave=1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


async def addresses(host: str, port: int) -> Sequence[AddrInfoType]:
    """Every address of a name, in the system's order. Raises OSError."""
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _destinations(origin: Origin, proxy: Proxy) -> Sequence[str]:
    """What a proxy is asked for: the origin by its name, or its addresses where names are resolved here."""
    if proxy.kind is not Kind.SOCKS5:
        return [origin.host]
    return list(dict.fromkeys(str(found[-1][0]) for found in await addresses(origin.host, origin.port)))
