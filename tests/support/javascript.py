"""Where node and the official JavaScript SDK are. Without them a test is skipped; in CI it fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

NPM_TESTS = Path(__file__).resolve().parents[1] / "npm"
NODE_MODULES = NPM_TESTS / "node_modules"


def node() -> str:
    """The path of node."""
    found = shutil.which("node")
    if found is not None and (NODE_MODULES / "openai").is_dir():
        return found
    reason = "node or its openai package is not installed; `make test` installs the package"
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)
