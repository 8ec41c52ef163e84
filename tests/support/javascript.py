"""Runs what is under `tests/npm` with node's own test runner. Without node a test is skipped; in CI it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.serving import Server

NPM_TESTS = Path(__file__).resolve().parents[1] / "npm"
NODE_MODULES = NPM_TESTS / "node_modules"


def node() -> str:
    """The path of node."""
    found = shutil.which("node")
    if found is not None and all((NODE_MODULES / name).is_dir() for name in ("openai", "ai")):
        return found
    reason = "node or the packages of tests/npm are not installed; `make test` installs the packages"
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def run_tests(name: str, server: Server, **environ: str) -> None:
    """Runs one file of tests against a server, which they find in CHATPORT_URL and CHATPORT_KEY."""
    _run(["--test", "--test-reporter=spec", name], server, environ)


def run_script(name: str, server: Server, **environ: str) -> str:
    """What one file prints, which finds the server in the same place."""
    return _run([name], server, environ)


def _run(arguments: list[str], server: Server, environ: Mapping[str, str]) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"CHATPORT_URL": server.url, "CHATPORT_KEY": server.key, **environ}
    done = subprocess.run(
        [node(), *arguments], cwd=NPM_TESTS, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
