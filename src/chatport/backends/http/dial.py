"""From an origin to an open connection: name, TCP (several addresses raced), a proxy's tunnel, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType
from msgspec import Struct

from chatport.backends.http.connection import Connection
from chatport.backends.http.faults import Phase, TimedOut, Unreachable
from chatport.backends.http.proxies import Proxy

RACE_DELAY = 0.25
"""Seconds after which the next address is tried beside the one that does not answer (RFC 8305 §5)."""

MAX_TUNNEL_HEAD = 8 * 1024
"""Bytes of a proxy's answer to CONNECT."""


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

    def target(self, path: str) -> str:
        """What stands in a request's first line: the path, or to a plain HTTP proxy the whole URL."""
        return f"http://{self.authority}{path}" if self.proxy is not None and not self.secure else path


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
            raise Unreachable(f"no connection to {origin.authority}: {exc}") from exc

    async def _dial(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        hop: Origin | Proxy = origin.proxy or origin
        sock = await _connect(hop.host, hop.port)
        try:
            if origin.proxy is not None and origin.secure:
                await _open_tunnel(sock, origin, origin.proxy)
            context = self._context(origin.ca_file) if origin.secure else None
            _, connection = await loop.create_connection(
                Connection, sock=sock, ssl=context, server_hostname=origin.host if context else None
            )
        except BaseException:
            sock.close()
            raise
        return connection

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


async def _open_tunnel(sock: socket.socket, origin: Origin, proxy: Proxy) -> None:
    """CONNECT: after this, the socket's bytes are the origin's. Raises Unreachable when the proxy refuses."""
    loop = asyncio.get_running_loop()
    destination = f"[{origin.host}]" if ":" in origin.host else origin.host
    where = f"{destination}:{origin.port}".encode()
    lines = [b"CONNECT %b HTTP/1.1" % where, b"Host: %b" % where]
    if proxy.authorization is not None:
        lines.append(b"Proxy-Authorization: " + proxy.authorization)
    await loop.sock_sendall(sock, b"\r\n".join([*lines, b"", b""]))
    head = b""
    while b"\r\n\r\n" not in head:
        # One byte at a time: what follows the head is the origin's, and can't be put back.
        byte = await loop.sock_recv(sock, 1)
        head += byte
        if not byte or len(head) > MAX_TUNNEL_HEAD:
            raise Unreachable(f"the proxy {proxy.host} did not answer CONNECT in HTTP")
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].startswith(b"2"):
        raise Unreachable(f"the proxy {proxy.host} refused CONNECT: {b' '.join(status[1:2]).decode('latin-1')}")
