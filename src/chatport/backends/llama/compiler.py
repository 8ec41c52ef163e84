"""llguidance, the compiler of grammars, in a process of its own.

The engine carries the same library inside, but drops a grammar that does not compile without a word (engine.md), and
compiles on the thread that computes everybody's answers. Grammars come from clients: some overflow the stack of who
compiles them, some take minutes. So each is compiled here first, down to the matcher and its first step, in a child
process that may be ended at any time and has less stack than the engine: what crashes it or takes too long is refused
like what is wrong.

Both ends of the pipe are in this file: `compiled` asks, `python -m chatport.backends.llama.compiler` answers.
"""

from __future__ import annotations

import atexit
import re
import subprocess
import sys
import threading
import time
from functools import lru_cache
from typing import Final

import msgspec

CACHED: Final = 256
"""Grammars whose fate is known: agents send the same tools with every request."""
LONGEST_CACHED: Final = 1 << 16
"""Characters."""
LONGEST: Final = 1 << 20
"""Characters of a grammar that is looked at at all: a schema of 5,000 properties has half of it."""
CPU_SECONDS: Final = 1.0
"""For one grammar: so long the engine would stand still for everybody. Large schemas take 0.1 s."""
SECONDS: Final = 8.0
"""By the clock, on a machine that is busy with other things; then the child is ended."""
STACK: Final = 1 << 21
"""Bytes of stack that the child compiles with. The engine's threads have four times as much on Linux."""
MEMORY: Final = 4 << 30
"""Bytes of address space that the child may have, where the system can hold it to that."""
SHOWN: Final = 300
"""Characters of the compiler's message that a client sees."""

TOO_LONG: Final = f"it takes more than {CPU_SECONDS:g} s to compile"
TOO_DEEP: Final = "it is nested too deep, or too large, to be compiled"

_TOKEN_ID: Final = re.compile(r"<\[\d+\]>")


class Uncompilable(Exception):
    """The grammar can't be held. The message is the compiler's, a line."""


def compiled(grammar: str) -> None:
    """Returns where the grammar compiles. Raises Uncompilable. Blocks: for milliseconds, SECONDS at the most."""
    if len(grammar) > LONGEST:
        raise Uncompilable(f"it has {len(grammar)} characters, allowed are {LONGEST}")
    fault = _known(grammar) if len(grammar) <= LONGEST_CACHED else _child.fault(grammar)
    if fault is not None:
        raise Uncompilable(fault)


@lru_cache(maxsize=CACHED)
def _known(grammar: str) -> str | None:
    return _child.fault(grammar)


class _Child:
    """The child process: started when it is first needed, and anew after it had to be ended. One grammar at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def fault(self, grammar: str) -> str | None:
        """Why the grammar does not compile; None where it does."""
        with self._turn:
            process = self._running()
            began = time.monotonic()
            end = threading.Timer(SECONDS, process.kill)
            end.start()
            try:
                line = _asked(process, msgspec.json.encode(grammar))
            finally:
                end.cancel()
            if line:
                return msgspec.json.decode(line, type=str) or None
            self.close()
            return TOO_LONG if time.monotonic() - began >= SECONDS else TOO_DEEP

    def close(self) -> None:
        """Ends the child. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603  our own module
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is for us
            )
        return self._process


def _asked(process: subprocess.Popen[bytes], question: bytes) -> bytes:
    """A line of answer; empty where the child is gone."""
    if process.stdin is None or process.stdout is None:
        return b""
    try:
        process.stdin.write(question + b"\n")
        process.stdin.flush()
        return process.stdout.readline()
    except OSError:
        return b""


_child = _Child()
atexit.register(_child.close)


# --- The child -------------------------------------------------------------------------------------------------------


def main() -> None:
    """Answers each line, a grammar as a JSON string, with a line: why it does not compile, or nothing."""
    _limit_memory()
    threading.stack_size(STACK)
    for line in sys.stdin.buffer:
        verdict = _Verdict(msgspec.json.decode(line, type=str))
        verdict.start()
        verdict.join()
        sys.stdout.buffer.write(msgspec.json.encode(verdict.fault) + b"\n")
        sys.stdout.buffer.flush()


class _Verdict(threading.Thread):
    """Compiles on a stack of the size that was set."""

    def __init__(self, grammar: str) -> None:
        super().__init__()
        self.fault = TOO_DEEP
        self._grammar = grammar

    def run(self) -> None:
        self.fault = _fault(self._grammar)


def _fault(grammar: str) -> str:
    from llguidance import LLMatcher, LLTokenizer  # noqa: PLC0415  here alone

    began = time.thread_time()
    # Ids of the model's control tokens mean nothing to a tokenizer of bytes: any of its own will do.
    matcher = LLMatcher(LLTokenizer("byte"), _TOKEN_ID.sub("<[5]>", grammar))
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        return _in_a_line(matcher.get_error())
    return TOO_LONG if time.thread_time() - began > CPU_SECONDS else ""


def _in_a_line(message: str) -> str:
    """Without the compiler's picture of the place in the grammar, which is ours and not the client's."""
    told = [line.strip() for line in message.splitlines() if " | " not in line and line.strip(" ^")]
    return " ".join(told)[:SHOWN]


def _limit_memory() -> None:
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  not on every system

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    main()
