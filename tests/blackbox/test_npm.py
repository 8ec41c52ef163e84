"""contract.md §13 with the official JavaScript SDK: runs `tests/npm/sdk.test.mjs` against both kinds of model."""

from __future__ import annotations

from support.javascript import run_tests
from support.serving import Server


def test_sdk_on_the_scripted_model(scripted_server: Server) -> None:
    run_tests("sdk.test.mjs", scripted_server, CHATPORT_MODEL="echo", CHATPORT_SCRIPTED="1")


def test_sdk_on_the_embedded_model(model_server: Server) -> None:
    run_tests("sdk.test.mjs", model_server, CHATPORT_MODEL="gpt-4")
