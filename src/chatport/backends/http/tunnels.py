"""What is said to a proxy before it steps aside: CONNECT (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928, RFC 1929).

The conversation runs on an asyncio transport, plain or TLS. After it the transport carries the origin's bytes: a TLS
handshake is put on top with `loop.start_tls`, which works inside TLS too, and at the end the transport is handed to the
protocol that speaks HTTP. Until then the `Greeting` is the transport's protocol, so that nothing which arrives early is
lost or taken for an answer.

SOCKS is ours since python-socks dials by itself: it tries one of a name's addresses, takes no socket, and lets faults
out that quote from the password. Credentials and the proxy's own texts are in no message of this file.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from typing import TypeVar

from chatport.backends.http.faults import Unreachable
from chatport.backends.http.proxies import Proxy

ConnectionT = TypeVar("ConnectionT", bound=asyncio.Protocol)

MAX_TUNNEL_HEAD = 8 * 1024
"""Bytes of a proxy's answer to CONNECT."""

MAX_NAME = 255
"""Bytes of a host's name: its length is one byte."""

SOCKS5 = 5
CONNECT = 1
NO_CREDENTIALS, USER_AND_PASSWORD = 0, 2
IPV4, NAME, IPV6 = 1, 3, 4

REFUSALS = {
    1: "general failure",
    2: "not allowed",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "address type not supported",
}
"""Replies of SOCKS5 (RFC 1928 §6)."""


class NotReached(Unreachable):
    """The proxy works, but can't or won't reach this address; it may another of the same name."""


class Greeting(asyncio.Protocol):
    """The near end of a line to a proxy, until it is handed over. Read by the one task that talks to the proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.transport: asyncio.Transport
        self._heard = bytearray()
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def write(self, data: bytes) -> None:
        """Sends. There is no need to wait: what is said here is short."""
        self.transport.write(data)

    async def read(self, size: int) -> bytes:
        """Exactly so many bytes. Raises Unreachable where the proxy closes before."""
        while len(self._heard) < size:
            await self._more()
        return self._take(size)

    async def read_head(self) -> bytes:
        """Up to and including a blank line. Raises Unreachable where none comes."""
        while (end := self._heard.find(b"\r\n\r\n")) < 0:
            if len(self._heard) > MAX_TUNNEL_HEAD:
                raise self.gibberish("HTTP")
            await self._more()
        return self._take(end + 4)

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """TLS with the origin, through the tunnel. Raises OSError, Unreachable."""
        self._check()
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(self.transport, self, context, server_hostname=host)
        except TypeError as exc:
            # The standard loop of Python before 3.11.8 and 3.12.2, at any fault of TLS inside TLS (gh-113214).
            raise Unreachable(f"no TLS through the proxy {self.proxy.host}: {exc.__context__}") from exc
        if transport is None:  # closed at the moment the handshake began
            raise self._closed()
        self.transport = transport

    def hand_over(self, connection: ConnectionT) -> ConnectionT:
        """From here on the line is the connection's. Raises Unreachable where it is no good any more."""
        self._check()
        self.transport.set_protocol(connection)
        connection.connection_made(self.transport)
        return connection

    def gibberish(self, language: str) -> Unreachable:
        """The fault of a proxy that is something else."""
        return Unreachable(f"the proxy {self.proxy.host} does not speak {language}")

    def _check(self) -> None:
        """The line must be open and silent: whoever is behind it speaks when spoken to."""
        if self._ended or self.transport.is_closing():
            raise self._closed()
        if self._heard:
            raise Unreachable(f"bytes that nobody asked for through the proxy {self.proxy.host}")

    def _closed(self) -> Unreachable:
        return Unreachable(f"closed behind or by the proxy {self.proxy.host}")

    def _take(self, size: int) -> bytes:
        taken = bytes(self._heard[:size])
        del self._heard[:size]
        return taken

    async def _more(self) -> None:
        if self._ended:
            raise self._closed()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # --- The transport's side ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard += data
        self._wake()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def open_tunnel(greeting: Greeting, host: str, port: int) -> None:
    """After this, the line's other end is `host`. Raises Unreachable where the proxy refuses."""
    if greeting.proxy.speaks_http:
        await _connect(greeting, host, port)
    else:
        await _log_in(greeting)
        await _reach(greeting, _address(host) + port.to_bytes(2, "big"))


async def _connect(greeting: Greeting, host: str, port: int) -> None:
    proxy = greeting.proxy
    where = f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode()
    lines = [b"CONNECT %b HTTP/1.1" % where, b"Host: %b" % where]
    if proxy.authorization is not None:
        lines.append(b"Proxy-Authorization: " + proxy.authorization)
    greeting.write(b"\r\n".join([*lines, b"", b""]))
    status = (await greeting.read_head()).split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
        raise greeting.gibberish("HTTP")
    if not status[1].startswith(b"2"):
        raise Unreachable(f"the proxy {proxy.host} refused CONNECT: {status[1].decode()}")


async def _log_in(greeting: Greeting) -> None:
    proxy = greeting.proxy
    offered = [NO_CREDENTIALS] if proxy.credentials is None else [NO_CREDENTIALS, USER_AND_PASSWORD]
    greeting.write(bytes([SOCKS5, len(offered), *offered]))
    version, chosen = await greeting.read(2)
    if version != SOCKS5:
        raise greeting.gibberish("SOCKS5")
    if chosen not in offered:
        raise Unreachable(f"the proxy {proxy.host} wants {'other ' if proxy.credentials else ''}credentials")
    if chosen == USER_AND_PASSWORD and proxy.credentials is not None:
        user, password = proxy.credentials
        greeting.write(b"\x01%c%b%c%b" % (len(user), user, len(password), password))
        _, status = await greeting.read(2)
        if status != 0:
            raise Unreachable(f"the proxy {proxy.host} refused the credentials")


async def _reach(greeting: Greeting, destination: bytes) -> None:
    greeting.write(bytes([SOCKS5, CONNECT, 0]) + destination)
    version, reply = await greeting.read(2)
    if version != SOCKS5:
        raise greeting.gibberish("SOCKS5")
    if reply != 0:
        raise NotReached(f"the proxy {greeting.proxy.host} refused: {REFUSALS.get(reply, reply)}")
    # What is left is the proxy's own address towards the origin, which nobody needs.
    _, form = await greeting.read(2)
    if form == NAME:
        (length,) = await greeting.read(1)
    elif form in {IPV4, IPV6}:
        length = 4 if form == IPV4 else 16
    else:
        raise greeting.gibberish("SOCKS5")
    await greeting.read(length + 2)


def _address(host: str) -> bytes:
    """A host as SOCKS5 writes it. Raises UnicodeError for what can be no name."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("idna")
        if len(name) > MAX_NAME:
            raise UnicodeError("host name too long") from None
        return bytes([NAME, len(name)]) + name
    return bytes([IPV4 if ip.version == 4 else IPV6]) + ip.packed
