"""Real proxies on loopback: what an HTTP proxy does with a request, and a SOCKS5 server with faults at each step."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from support.upstreams import PATIENCE, Asked, Behaviour, Wire, listening, whole

LOOPBACK = "127.0.0.1"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n"

Step = Literal["greeting", "login", "request"]
Login = tuple[bytes, bytes]


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()


async def relay(wire: Wire, port: int, first: bytes = b"") -> None:
    """Both ways, until both sides are done. Whatever the name was: what is reached is on loopback."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(first)
    try:
        await asyncio.gather(pump(wire.reader, writer), pump(reader, wire.writer))
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def forwarding(login: Login | None = None) -> Behaviour:
    """What an HTTP proxy does: tunnels for CONNECT, other requests are sent on with their path alone."""
    basic = None if login is None else "Basic " + base64.b64encode(b":".join(login)).decode()

    async def behave(wire: Wire, asked: Asked) -> None:
        method, target, _ = asked.line.split(" ")
        if basic is not None and asked.headers.get("proxy-authorization") != basic:
            await wire.send(whole(b"", "407 Proxy Authentication Required"))
        elif method == "CONNECT":
            await wire.send(ESTABLISHED)
            await relay(wire, int(target.rpartition(":")[2]))
        else:
            url = urlsplit(target)
            head = f"{method} {url.path} HTTP/1.1\r\nContent-Length: {len(asked.body)}\r\n\r\n"
            await relay(wire, url.port or 80, head.encode() + asked.body)

    return behave


class Over(Exception):
    """The conversation ends here, as the test said."""


@dataclass(kw_only=True)
class Socks:
    """A SOCKS5 server: how it behaves, where it is, and what it has heard."""

    login: Login | None = None
    instead: Mapping[Step, bytes] = field(default_factory=dict)
    """What is said at a step in place of the right answer, before it closes."""
    hanging: bool = False
    """After that, says no more instead of closing."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Replies for hosts that are not reached."""
    bound: bytes = b"\x01\x7f\x00\x00\x01"
    """The address that a good reply names."""

    port: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)
    logins: list[Login] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)

    async def all_gone(self, within: float = PATIENCE) -> None:
        """Returns when the other side has left every connection."""
        async with asyncio.timeout(within):
            for wire in self.wires:
                await wire.gone.wait()

    async def talk(self, wire: Wire) -> None:
        read = wire.reader.readexactly
        version, count = await read(2)
        methods = await read(count)
        method = 0 if self.login is None else 2
        await self._say(wire, "greeting", bytes([version, method if method in methods else 255]))
        if method == 2:
            version, length = await read(2)
            user = await read(length)
            self.logins.append((user, await read((await read(1))[0])))
            await self._say(wire, "login", bytes([version, self.logins[-1] != self.login]))
        assert await read(3) == b"\x05\x01\x00"
        host, port = await self._address(wire), int.from_bytes(await read(2), "big")
        self.asked.append((host, port))
        reply = self.refused.get(host, 0)
        await self._say(wire, "request", bytes([5, reply, 0]) + self.bound + b"\x00\x50")
        if reply == 0:
            await relay(wire, port)

    async def _say(self, wire: Wire, step: Step, right: bytes) -> None:
        await wire.send(self.instead.get(step, right))
        if step in self.instead:
            if self.hanging:
                await wire.until_gone()
            raise Over

    async def _address(self, wire: Wire) -> str:
        read = wire.reader.readexactly
        (form,) = await read(1)
        if form == 3:
            return (await read((await read(1))[0])).decode("ascii")
        return str(ipaddress.ip_address(await read({1: 4, 4: 16}[form])))


@asynccontextmanager
async def serving(proxy: Socks) -> AsyncIterator[Socks]:
    """The server at its port. Leaving ends all of it."""

    async def talk(wire: Wire) -> None:
        proxy.wires.append(wire)
        with suppress(Over, asyncio.IncompleteReadError):
            await proxy.talk(wire)

    async with listening(talk) as proxy.port:
        yield proxy
