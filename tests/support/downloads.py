"""Servers on loopback that give out files, and do what lines and servers do wrong."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Line:
    """How files leave a server: with which faults, and what was asked for."""

    def __init__(self) -> None:
        self.ranges = True
        self.cuts: list[int] = []
        """Bytes after which the next replies break off."""
        self.pause = 0.0
        """Seconds before each `block`."""
        self.block = 1 << 20
        """Bytes written at once."""
        self.asked: list[str] = []
        """The Range headers of the requests, "" for none."""
        self.headers: list[dict[str, str]] = []
        """All headers of the requests."""
        self.closing = threading.Event()
        """Set when the server ends, so that nobody waits any longer."""


class FileHandler(http.server.BaseHTTPRequestHandler):
    """Replies with bytes, whole or from a place on."""

    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.head(status, len(body), headers or {})
        self.wfile.write(body)

    def head(self, status: int, size: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/octet-stream"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def answer_file(self, data: bytes, line: Line) -> None:
        """As the line allows: broken off, slowly, without ranges."""
        wanted = self.headers.get("Range", "")
        line.asked.append(wanted)
        line.headers.append(dict(self.headers.items()))
        cut = line.cuts.pop(0) if line.cuts else None
        span = re.fullmatch(r"bytes=(\d+)-", wanted)
        start = int(span[1]) if span and line.ranges else 0
        placed = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self.head(206 if start else 200, len(data) - start, placed)
        self.close_connection = cut is not None
        rest = data[start:][:cut]
        for at in range(0, len(rest), line.block):
            if line.closing.wait(line.pause):
                return
            self.wfile.write(rest[at : at + line.block])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class calls it so
        """The test's output stays free of requests."""


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is what these tests are about."""


@contextmanager
def listening(handler: type[FileHandler], **attributes: object) -> Iterator[str]:
    """The handler, with these attributes, on a port of its own; its address without a path."""
    server = _Server(("127.0.0.1", 0), type("Bound", (handler,), attributes))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        for line in attributes.values():
            if isinstance(line, Line):
                line.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Seen:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.done: list[int] = []
        self.total = 0

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def moved(self, done: int, total: int) -> None:
        self.done.append(done)
        self.total = total
