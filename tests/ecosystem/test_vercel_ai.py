"""The Vercel AI SDK: runs `tests/npm/ai.test.mjs`."""

from __future__ import annotations

from support.javascript import run_tests
from support.serving import Server


def test_the_ai_sdk(server: Server) -> None:
    run_tests("ai.test.mjs", server)
