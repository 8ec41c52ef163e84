"""A model in a process of its own, as the program that started it has it.

The engine's constructor holds the interpreter for seconds (engine.md, pitfall 2) and a fault in it ends its process: a
model that comes and goes while others answer lives apart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Final, Self

import msgspec

from chatport.backends.llama.backend import LlamaSettings
from chatport.backends.llama.listener import private_folder
from chatport.backends.on_demand.frames import Frames, Message, frame, from_model
from chatport.backends.on_demand.remote import RemoteBackend
from chatport.wire.errors import Unavailable

PROGRAM: Final = "chatport.backends.on_demand.worker"
READ: Final = 1 << 16
"""Bytes that are read at once."""
CLOSE_SECONDS: Final = 5.0
"""For a process that is told to end; then it is killed."""
LONGEST_LINE: Final = 500
"""Characters kept of what the engine writes to standard error by itself."""

log = logging.getLogger("chatport")


class ModelProcess(RemoteBackend):
    """Made by `load`."""

    def __init__(self, name: str, process: Process, folder: Path, ended: Callable[[], None]) -> None:
        super().__init__(name, self._write)
        self._process = process
        self._folder = folder
        self._ended = ended
        self._told_to_end = False
        # Not in the context of the request that came first: what the process says is not said for that one.
        self._following = asyncio.create_task(self._follow(), context=Context())

    @classmethod
    async def load(cls, name: str, settings: LlamaSettings, seconds: float, ended: Callable[[], None]) -> Self:
        """Starts a process and has it load the model. `ended` is called when the process has, for whatever reason.

        Raises ApiError, a 503 with a sentence for a model that can't be loaded or not in this time, and WeightsError
        where no process can be had. Cancelled or failed, it leaves no process.
        """
        folder = private_folder()
        try:
            process = await asyncio.create_subprocess_exec(
                # -P: the folder we happen to be in holds no modules of ours.
                *(sys.executable, "-P", "-m", PROGRAM),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},  # what it leaves there when it crashes is removed
                start_new_session=True,  # Ctrl-C in a terminal is for us
            )
        except OSError as exc:
            shutil.rmtree(folder, ignore_errors=True)
            raise Unavailable(f"No process can be started for the model {name}: {exc.strerror}.") from exc
        model = cls(name, process, folder, ended)
        try:
            await model._open_within(settings, seconds)
        except BaseException:
            await model.kill()
            raise
        return model

    @property
    def pid(self) -> int:
        return self._process.pid

    async def close(self) -> None:
        """Ends what is running, then the process; after CLOSE_SECONDS, by force. Idempotent."""
        self._told_to_end = True
        await super().close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.shield(self._following)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Ends the process now, whatever it does."""
        self._told_to_end = True
        if self._process.returncode is None:
            self._process.kill()
        await asyncio.shield(self._following)

    async def _open_within(self, settings: LlamaSettings, seconds: float) -> None:
        """Not waited for longer, and not at all by who is cancelled: a process that loads can't be told to stop."""
        opening = asyncio.create_task(self.open(settings))
        opening.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({opening}, timeout=seconds)
        if not opening.done():
            raise Unavailable(f"The model {self._name} could not be loaded within {seconds:g} s.")
        opening.result()

    def _write(self, message: Message) -> None:
        """Never waits: it is calls, each the size of its request, and a few bytes about them."""
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(frame(message))

    async def _follow(self) -> None:
        """Takes what the process says until it has ended."""
        errors = asyncio.create_task(self._read_errors())
        try:
            await self._read()
        except msgspec.DecodeError as exc:
            log.error("the process of the model %s is not understood, and ended", self._name, exc_info=exc)
            self._process.kill()
        await errors
        reason = _in_words(await self._process.wait())
        if not self._told_to_end:
            log.error("the process of the model %s has ended: %s", self._name, reason)
        self.lose(f"The process of the model {self._name} has ended ({reason}).")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._ended()

    async def _read(self) -> None:
        frames, source = Frames(), self._process.stdout
        while source is not None and (data := await source.read(READ)):
            for content in frames.feed(data):
                self.take(from_model(content))

    async def _read_errors(self) -> None:
        """What the engine's own code writes, seldom more than its last words."""
        source = self._process.stderr
        while source is not None and (data := await source.read(READ)):
            for line in data.decode("utf-8", "replace").splitlines():
                if line.strip():
                    log.warning("%s: %s", self._name, line[:LONGEST_LINE])


def _in_words(code: int) -> str:
    """An exit code in words."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
