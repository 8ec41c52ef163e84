"""A server whose models say what a chat must cope with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.chats import Chats
from support.serving import Server, serving

MODELS = """
[[models]]
id = "echo"
backend = "scripted"
aliases = ["parrot"]

[[models]]
id = "slow"
backend = "scripted"
reply = ["tick ", "tock ", "tick ", "tock ", "tick ", "tock ", "tick ", "tock ", "tick ", "tock "]
delay_ms = 300

[[models]]
id = "silent"
backend = "scripted"
delay_ms = 60000

[[models]]
id = "mute"
backend = "scripted"
reply = []

[[models]]
id = "evil"
backend = "scripted"
reply = ["a\\u001b]0;title\\u0007", "b\\r\\n\\tc\\u009b31m", "d\\u007f\\u0000"]

[[models]]
id = "busy"
backend = "scripted"
fail_status = 429
"""


@pytest.fixture(scope="module")
def chat_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("chat"), MODELS) as server:
        yield server


@pytest.fixture
def chats(chat_server: Server, tmp_path: Path) -> Chats:
    """Works in a folder of the test's own."""
    return Chats(chat_server, tmp_path)
