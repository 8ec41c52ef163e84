"""instructor, in an environment of its own: it can't live beside the openai SDK of `constraints.txt` (jiter)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.serving import Server

CASES = Path(__file__).parent / "instructor" / "cases.py"
PYTHON = Path(sys.prefix, "instructor", "bin", "python")


def test_cases(server: Server) -> None:
    if not PYTHON.exists():
        reason = "instructor is not installed; `make test` installs it"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    where = {"CHATPORT_URL": server.url, "CHATPORT_KEY": server.key}
    alone = [
        "-c",
        os.devnull,
        "--rootdir",
        str(CASES.parent),
        "--confcutdir",
        str(CASES.parent),
        "-p",
        "no:cacheprovider",
    ]
    command = [str(PYTHON), "-m", "pytest", *alone, "-W", "error", "--tb=short", "-q", str(CASES)]
    done = subprocess.run(
        command, env={**os.environ, **where}, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
