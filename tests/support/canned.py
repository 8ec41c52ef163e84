"""A server that sends prepared bytes: every wrong reply a client may meet, on a real socket."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import parse_headers
from typing import Any, NamedTuple, cast


class Received(NamedTuple):
    """A request: its first line without the version, and what else a test may look at."""

    line: str
    authorization: str | None
    body: bytes


def reply(body: bytes | str | Mapping[str, Any], status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A whole reply; a mapping is sent as JSON. `kind`: its content type."""
    text = json.dumps(body) if isinstance(body, Mapping) else body
    data = text.encode() if isinstance(text, str) else text
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


def stream(*events: Mapping[str, Any] | str, cut: bool = False) -> bytes:
    """A streamed reply in chunks; `cut`: its end does not come."""
    sent = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    for event in events:
        data = f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n"
        sent += f"{len(data.encode()):x}\r\n{data}\r\n"
    return (sent if cut else f"{sent}0\r\n\r\n").encode()


def delta(**said: str) -> dict[str, Any]:
    """A frame as sloppy servers send it: without an id, a fingerprint or a date."""
    return {"choices": [{"index": 0, "delta": said}]}


class CannedServer(socketserver.ThreadingTCPServer):
    """`replies`: what each path is answered with; anything else is a 404."""

    daemon_threads = True

    def __init__(self, replies: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies = replies
        self.received: list[Received] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = cast("CannedServer", self.server)
        method, path, _ = self.rfile.readline().decode().split()
        headers = parse_headers(self.rfile)
        body = self.rfile.read(int(headers.get("content-length") or 0))
        server.received.append(Received(f"{method} {path}", headers.get("authorization"), body))
        missing = reply({"error": {"message": "No such path."}}, "404 Not Found")
        self.wfile.write(server.replies.get(path, missing))


@contextmanager
def canned(replies: Mapping[str, bytes]) -> Iterator[CannedServer]:
    """Serves on a free loopback port until the block is left."""
    with CannedServer(replies) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
