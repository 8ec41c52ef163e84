"""Signals that end a command: what it holds is given back before it goes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from chatport.cli.endings import Ending


@contextmanager
def ended_by_signals(ending: Ending, *numbers: int) -> Iterator[None]:
    """These signals end the program in good order, with this code: every `finally` is passed through.

    As the first process of a container we would not even be ended by SIGTERM without a handler.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(ending)

    earlier = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
