"""The program of a model's own process: `python -m chatport.backends.on_demand.worker`, started by `process.py`.

Frames come in on standard input and leave on what was standard output, to which nothing else writes then. It listens on
nothing and ends when its input does, which is when the program that started it has gone, however it went. Loading
holds the interpreter, so that the end of the input may be noticed late: where the system can do it, the death of the
parent ends this process at once.

SIGINT and SIGTERM are not for it: they go to whole groups of processes, and the parent wants its answers finished.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from chatport.backends.llama.backend import LlamaBackend
from chatport.backends.llama.catalogue import WeightsError
from chatport.backends.on_demand.frames import Frames, Logged, Message, Open, Opened, failed, frame, to_model
from chatport.backends.on_demand.host import Host
from chatport.telemetry import REQUEST_ID
from chatport.wire.errors import InternalError, Unavailable

READ: Final = 1 << 16
"""Bytes that are read at once."""
PR_SET_PDEATHSIG: Final = 1
"""Linux, prctl(2)."""
OOM_SCORE: Final = "500"
"""Short of memory, Linux ends this process before the one that serves everybody (proc(5): -1000 to 1000)."""

log = logging.getLogger("chatport")

Say = Callable[[Message], None]


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    asyncio.run(serve(sys.stdin.buffer, own_output()))


def own_output() -> BinaryIO:
    """Standard output for us alone: what others print, the engine say, goes to standard error."""
    ours = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return ours


async def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Opens the model that the first frame names, and answers until the source ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    pipe, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sink)

    def say(message: Message) -> None:
        pipe.write(frame(message))

    log_through(say)
    frames = Frames()
    host: Host | None = None
    backend: LlamaBackend | None = None
    while data := await reader.read(READ):
        for message in map(to_model, frames.feed(data)):
            if host is not None:
                host.take(message)
            elif isinstance(message, Open) and (backend := await opened(message, say)):
                host = Host(backend, say)
    if host is not None and backend is not None:
        await host.leave()
        await backend.close()


async def opened(message: Open, say: Say) -> LlamaBackend | None:
    """The model, loaded. What prevents it is said."""
    try:
        backend = await LlamaBackend.open(message.settings)
    except WeightsError as error:
        say(failed(message.call, Unavailable(str(error))))
    except Exception as exc:
        log.error("the model can't be loaded", exc_info=exc)
        say(failed(message.call, InternalError()))
    else:
        say(Opened(message.call))
        return backend
    return None


class Lines(logging.Handler):
    """Sends log lines to the program, whose log they belong in."""

    def __init__(self, say: Say) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(Logged(record.levelno, self.format(record), REQUEST_ID.get()))


def log_through(say: Say) -> None:
    logging.getLogger().addHandler(Lines(say))
    log.setLevel(logging.INFO)


if __name__ == "__main__":
    main()
