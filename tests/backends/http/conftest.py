"""Each test of the room runs on both loops: uvloop, which the server uses, and the standard library's."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import pytest

if sys.platform != "win32":
    import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if sys.platform != "win32":
        loops["uvloop"] = uvloop.new_event_loop
    return loops
