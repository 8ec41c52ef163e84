"""What can go wrong on the way to an upstream and back, before anybody looks at what it said.

    Fault
    ├── Unreachable     no connection: refused, no such host, TLS or the proxy refused
    ├── TimedOut        a phase took longer than it may
    ├── Broken          the connection ended too early, or what came is not HTTP
    └── TooLarge        the answer is over a limit

Their texts are for the log: they may name hosts. What a client hears is decided by the backend.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What is being waited for."""

    CONNECT = "connect"
    SEND = "send"
    FIRST_BYTE = "first byte"
    BETWEEN = "next byte"
    TOTAL = "whole answer"


class Fault(Exception):
    """The upstream could not be asked, or did not answer in HTTP."""


class Unreachable(Fault):
    """No connection could be made; nothing was sent."""


class TimedOut(Fault):
    """A phase took too long. The connection is gone."""

    def __init__(self, phase: Phase, seconds: float) -> None:
        super().__init__(f"timed out after {seconds:g} s waiting for the {phase.value}")
        self.phase = phase


class Broken(Fault):
    """The connection ended before the answer did, or its bytes are not HTTP."""


class TooLarge(Fault):
    """More bytes than are read of an upstream."""
