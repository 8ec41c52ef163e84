"""HTTP without a library: bytes out, bytes in, so that nothing on our side tidies up what a hostile client sends.

`parse_replies` is strict: whatever a server writes must be whole replies with a length, chunks or an end, and nothing
between them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

PATIENCE = 5.0
"""Seconds after which a reply that was to come is a hang."""


class Malformed(AssertionError):
    """The bytes are no HTTP reply."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool = True
    """False: the connection ended before the body did."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, which must have its four keys and the headers of an error."""
        assert self.headers["content-type"].startswith("application/json")
        assert self.headers["x-request-id"].startswith("req_")
        error: dict[str, Any] = self.json["error"]
        assert set(self.json) == {"error"}
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert error["type"]
        return error

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


def request(
    method: str = "POST",
    target: str = "/v1/chat/completions",
    body: bytes = b"",
    *,
    key: str | None = "sk-good",
    headers: Iterable[tuple[str, str]] = (),
    content_type: str | None = "application/json",
) -> bytes:
    """A well-formed request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    if content_type is not None and method == "POST":
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name}: {value}" for name, value in headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def parse_replies(data: bytes, *, ended: bool = False, methods: Iterable[str] = ()) -> list[Reply]:
    """Every reply in what a server wrote; `methods`: of the requests, for those to HEAD. Raises Malformed.

    Without `ended`, a reply that is not whole yet is left out; with it, it is the last one, `whole` False.
    """
    replies, asked = [], iter(methods)
    while data:
        reply, data = _parse_reply(data, ended=ended, head_only=next(asked, "") == "HEAD")
        if reply is None:
            break
        replies.append(reply)
    return replies


def _parse_reply(data: bytes, *, ended: bool, head_only: bool) -> tuple[Reply | None, bytes]:
    if not b"HTTP/1.1 ".startswith(data[:9]):
        raise Malformed(f"no status line: {data[:80]!r}")
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        if ended:
            raise Malformed(f"a head that does not end: {data[:80]!r}")
        return None, data
    status, headers = _parse_head(head)
    if head_only or status in {100, 204, 304}:
        return Reply(status, headers, b""), rest
    if headers.get("transfer-encoding") == "chunked":
        body, rest, whole = _parse_chunks(rest)
    elif "content-length" in headers:
        length = int(headers["content-length"])
        body, rest, whole = rest[:length], rest[length:], len(rest) >= length
    else:
        if headers.get("connection") != "close":
            raise Malformed(f"a body without an end: {head!r}")
        body, rest, whole = rest, b"", ended
    if not whole and not ended:
        return None, data
    return Reply(status, headers, body, whole), rest


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.split(b"\r\n")
    version, status, _ = first.split(b" ", 2)
    if version != b"HTTP/1.1" or len(status) != 3:
        raise Malformed(f"no status line: {first!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(": ")
        if not colon or name != name.lower() or "\n" in line.decode("latin-1") or name in headers:
            raise Malformed(f"a bad or repeated header: {line!r}")
        headers[name] = value
    if "content-length" in headers and "transfer-encoding" in headers:
        raise Malformed(f"two lengths: {head!r}")
    return int(status), headers


def _parse_chunks(data: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while True:
        size, separator, rest = data.partition(b"\r\n")
        if not separator:
            return body, b"", False
        length = int(size, 16)
        if len(rest) < length + 2:
            return body + rest[:length], b"", False
        if rest[length : length + 2] != b"\r\n":
            raise Malformed(f"a chunk that does not end: {rest[length : length + 10]!r}")
        body, data = body + rest[:length], rest[length + 2 :]
        if length == 0:
            return body, data, True


class RawClient:
    """A connection to a real port. An async context; leaving it closes the connection with a FIN."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = b""
        self._ended = False

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a segment of its own, as far as the kernel lets us say so."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def reply(self) -> Reply:
        """The next whole reply, 100s included. Fails when it does not come in time."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = parse_replies(self._received, ended=self._ended)
                if found:
                    reply, self._received = _parse_reply(self._received, ended=self._ended, head_only=False)
                    assert reply is not None
                    return reply
                assert not self._ended, "the connection ended without a reply"
                await self._receive()

    async def until(self, data: bytes) -> None:
        """Returns when these bytes have come."""
        async with asyncio.timeout(PATIENCE):
            while data not in self._received:
                assert not self._ended, f"the connection ended before {data!r}"
                await self._receive()

    async def rest(self) -> list[Reply]:
        """Every reply up to the server's end of the connection; a reset counts as one."""
        async with asyncio.timeout(PATIENCE):
            while not self._ended:
                await self._receive()
        return parse_replies(self._received, ended=True)

    async def _receive(self) -> None:
        try:
            data = await self._reader.read(65536)
        except ConnectionError:
            data = b""
        self._received += data
        self._ended = not data

    def finish_sending(self) -> None:
        """Our FIN."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Goes without a word more."""
        self._writer.transport.abort()
