"""The real program at a real pseudo-terminal: what a person types goes in, what their terminal gets comes out."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PATIENCE = 20.0
"""Seconds to wait for anything; others may be using the cores."""

TAKE_TERMINAL = """
import fcntl, os, struct, sys, termios
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the pseudo-terminal the program's own, so that Ctrl-C reaches it as a signal."""

CTRL_C, CTRL_D, ENTER, ALT_ENTER, TAB, UP = "\x03", "\x04", "\r", "\x1b\r", "\t", "\x1b[A"


def pasted(text: str) -> str:
    """What a terminal sends for text from the clipboard (bracketed paste)."""
    return f"\x1b[200~{text}\x1b[201~"


class Terminal:
    """`shown`: every byte that the terminal got, as text; its line ends are CRLF."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.shown = ""
        self._master = master
        self._seen = 0
        self._bytes = b""

    def type(self, text: str) -> None:
        self.type_bytes(text.encode())

    def type_bytes(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def enter(self, line: str) -> None:
        """Types a line and sends it."""
        self.type(line + ENTER)

    def expect(self, text: str) -> str:
        """Waits until the terminal gets this text after what was expected before; returns what came in between."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.shown.find(text, self._seen)) < 0:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{text!r} was not shown; after the last match came {self.shown[self._seen :]!r}")
        between = self.shown[self._seen : found]
        self._seen = found + len(text)
        return between

    def ended(self) -> int:
        """Waits for the program's end; its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(PATIENCE)

    def _read(self, patience: float) -> bool:
        """Takes in what comes next; False where nothing does."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, patience))
        try:
            piece = os.read(self._master, 65536) if ready else b""
        except OSError:  # Linux says so when the last program at the terminal has gone
            piece = b""
        self._bytes += piece
        self.shown = self._bytes.decode("utf-8", "replace")
        return bool(piece)


@contextmanager
def at_terminal(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    cwd: Path,
    *,
    stdin: bytes | None = None,
    stdout: IO[bytes] | None = None,
) -> Iterator[Terminal]:
    """Runs `chatport ARGUMENTS` with stdin, stdout and stderr at a terminal of its own; ends it at the end.

    `stdin`: a pipe with this in it instead. `stdout`: a file instead.
    """
    master, slave = pty.openpty()
    command = [sys.executable, "-c", TAKE_TERMINAL, sys.executable, "-m", "chatport", *arguments]
    # Nobody here would answer the question where the cursor is.
    environ = {**environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
    process = subprocess.Popen(
        command,
        stdin=slave if stdin is None else subprocess.PIPE,
        stdout=stdout or slave,
        stderr=slave,
        env=environ,
        cwd=cwd,
        start_new_session=True,
    )
    os.close(slave)
    if process.stdin is not None:
        process.stdin.write(stdin or b"")
        process.stdin.close()
    try:
        yield Terminal(process, master)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)
