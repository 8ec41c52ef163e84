"""contract.md §13 with the official JavaScript SDK: runs `tests/npm/sdk.test.mjs` against both kinds of model."""

from __future__ import annotations

import os
import subprocess

from support.javascript import NPM_TESTS, node
from support.serving import Server


def run(server: Server, **environ: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"CHATPORT_URL": server.url, "CHATPORT_KEY": server.key, **environ}
    command = [node(), "--test", "--test-reporter=spec", str(NPM_TESTS / "sdk.test.mjs")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_sdk_on_the_scripted_model(scripted_server: Server) -> None:
    run(scripted_server, CHATPORT_MODEL="echo", CHATPORT_SCRIPTED="1")


def test_sdk_on_the_embedded_model(model_server: Server) -> None:
    run(model_server, CHATPORT_MODEL="gpt-4")
