"""What the program says while it runs: log lines for people or for programs, one of them for each request.

Nothing of a prompt, an answer or a key is ever in a line. Whatever a client chose itself (a path, a model's name) is
written as a JSON string, so that it can't forge a line of its own.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

from msgspec import Struct, json, structs

from chatport.ids import fresh

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The request that the running task works for: every line logged meanwhile, in whatever room, names it."""

SHOWN = 128
"""Characters of a path or a model's name in a log line: they come from the client."""

HOLD_SECONDS = 0.05
"""For the lines of requests, to be written together."""

root = logging.getLogger()
ours = logging.getLogger("chatport")
access_log = logging.getLogger("chatport.access")


class Access(Struct, frozen=True, kw_only=True, gc=False):
    """One request and how it was answered: milliseconds from its head to the reply's end. `status` 499: the client
    left before it had the whole answer."""

    method: str
    path: str
    status: int
    ms: float
    request_id: str
    client: str | None = None
    """Its address, or `unix`."""
    key_id: str | None = None
    model: str | None = None
    target: str | None = None
    """The last upstream that was asked, None where there was none."""
    attempts: int = 0
    """Times that the request was sent to a model."""

    def line(self) -> str:
        """All of it but the time, in plain text."""
        model = "-" if self.model is None else _quoted(self.model)
        upstream = "" if self.target is None else f" {_quoted(self.target)} {self.attempts}"
        milliseconds = "%.1f" % self.ms  # noqa: UP031  half of what an f-string's format costs
        return (
            f"{self.method} {_quoted(self.path)} {self.status} {milliseconds}ms {self.request_id} "
            f"{self.client or '-'} {self.key_id or '-'} {model}{upstream}"
        )

    __str__ = line


def new_request_id() -> str:
    """A fresh `x-request-id`."""
    return fresh("req_")


def log_access(access: Access) -> None:
    """The request's line, at level info. Where the program's own handler is the only one to hear of it, and nothing
    filters, it is told straight: a record, and its way through the loggers, cost twice what the line does."""
    if not access_log.isEnabledFor(logging.INFO):
        return
    straight = access_log.propagate and ours.propagate and len(root.handlers) == 1
    if access_log.handlers or ours.handlers or access_log.filters:
        straight = False
    if straight and isinstance(buffer := root.handlers[0], AccessBuffer) and not buffer.filters:
        buffer.hold(time.time(), access)
    else:
        access_log.handle(logging.LogRecord(access_log.name, logging.INFO, "", 0, access, None, None))


def configure_logging(level: str, *, json_lines: bool = False, stream: TextIO | None = None) -> None:
    """Sends our lines from `level` on, and everybody else's warnings, to `stream` (default: stderr).

    `level`: debug, info, warning or error. A second call takes the place of the first.
    """
    for earlier in root.handlers:
        if isinstance(earlier, AccessBuffer):
            root.removeHandler(earlier)
    root.addHandler(AccessBuffer(stream or sys.stderr, JSONLines() if json_lines else PlainLines()))
    root.setLevel(logging.WARNING)
    ours.setLevel(level.upper())
    # What no line of ours shows need not be found out for each (the logging how-to's "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class AccessBuffer(logging.StreamHandler[TextIO]):
    """Makes and writes the lines of requests together, those of a moment at a time: each write costs as much as making
    the line, and a line made behind others costs less.

    Any other line is written at once, behind those before it. A killed process loses the requests of its last moment.
    """

    def __init__(self, stream: TextIO, lines: PlainLines | JSONLines) -> None:
        super().__init__(stream)
        self.setFormatter(lines)
        self._lines = lines
        self._held: deque[tuple[float, Access]] = deque()

    def hold(self, at: float, access: Access) -> None:
        """Keeps a request for the moment's write. `at`: Unix seconds."""
        self._held.append((at, access))
        if len(self._held) == 1:
            loop = asyncio._get_running_loop()
            if loop is None:
                self._write_out()
            else:
                loop.call_later(HOLD_SECONDS, self._write_out)

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, Access):
            self.hold(record.created, record.msg)
        else:
            self._write_out()
            super().emit(record)

    def flush(self) -> None:
        self._write_out()
        with suppress(OSError, ValueError):
            super().flush()

    def _line(self, at: float, access: Access) -> str:
        """The line of one; where something in it can't be written, without all that its client chose."""
        try:
            return self._lines.request(at, access)
        except Exception:  # noqa: BLE001  whatever it is, it takes no other line with it
            return self._lines.request(at, structs.replace(access, path="?", client=None, model=None, target=None))

    def _write_out(self) -> None:
        """Under the handler's lock, since other threads log too; what is held meanwhile waits for the next time."""
        self.acquire()
        try:
            lines = [self._line(*self._held.popleft()) for _ in range(len(self._held))]
            if lines:
                with suppress(OSError, ValueError):  # a log that can't be written, or is closed, ends no request
                    self.stream.write("\n".join(lines) + "\n")
                    self.stream.flush()
        finally:
            self.release()


class PlainLines(logging.Formatter):
    """`2026-11-23T12:00:00.000Z INFO sentence [req_…]`; a traceback follows on lines of its own."""

    def request(self, at: float, access: Access) -> str:
        """The line of one."""
        return f"{_time(at)} INFO {access.line()}"

    def format(self, record: logging.LogRecord) -> str:
        request_id = REQUEST_ID.get()
        line = f"{_time(record.created)} {record.levelname} {record.getMessage()}"
        line += f" [{request_id}]" if request_id else ""
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JSONLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, request_id; a request's own fields; traceback."""

    def request(self, at: float, access: Access) -> str:
        """The line of one."""
        line = {"time": _time(at), "level": "info", "logger": access_log.name, **structs.asdict(access)}
        return json.encode(line | {"ms": round(access.ms, 1)}).decode()

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": REQUEST_ID.get() or None,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.encode(line).decode()


def _time(at: float) -> str:
    second = int(at)
    return f"{_second(second)}.{_THOUSANDTHS[int((at - second) * 1000)]}Z"


_THOUSANDTHS = ["%03d" % n for n in range(1000)]  # noqa: UP031
"""Written once: writing one costs as much as all else of a time."""


@lru_cache(maxsize=1)
def _second(since_epoch: int) -> str:
    return datetime.fromtimestamp(since_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    """As it is when plain, otherwise escaped as Python does: no white space, no control character gets out."""
    if text.isascii() and text.isprintable() and not {" ", '"', "'"} & {*text}:
        return text
    return ascii(text).replace(" ", "\\x20")
