"""The program itself: version, help, and that neither waits for what only a server needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chatport import __version__
from chatport.cli.app import app
from chatport.cli.endings import Ending

runner = CliRunner()
DOCS = Path(__file__).parent.parent.parent / "docs"
COMMANDS = [
    "serve",
    "chat",
    "models list",
    "models pull",
    "models rm",
    "keys create",
    "keys list",
    "keys revoke",
    "limits set",
    "limits list",
    "limits rm",
    "prices import",
    "prices list",
    "prices set",
    "prices unset",
    "budgets create",
    "budgets list",
    "budgets set",
    "budgets end",
    "grants add",
    "corrections add",
    "owners set",
    "owners list",
    "usage",
    "explain",
    "audit",
    "backup",
    "ledger export",
    "ledger verify",
    "config check",
]


def python(*arguments: str) -> str:
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, *arguments], env=environ, capture_output=True, text=True, check=True)
    return done.stdout


def test_version_through_the_module() -> None:
    assert python("-m", "chatport", "--version") == f"chatport {__version__}\n"


def test_help_needs_neither_server_nor_store_nor_engine() -> None:
    code = "import sys, chatport.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(python("-c", code).split())
    assert "typer" in loaded
    assert not loaded & {
        "sqlalchemy",
        "alembic",
        "uvicorn",
        "starlette",
        "uvloop",
        "xllamacpp",
        "jinja2",
        "prompt_toolkit",
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_is_documented(command: str) -> None:
    shown = runner.invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    options = set(re.findall(r"(?<!\w)--[a-z][a-z-]+", shown.stdout)) - {"--help"}
    page = (DOCS / "cli.md").read_text("utf-8")
    section = page.partition(f"## `chatport {command}")[2].partition("\n## ")[0]
    assert section, f"docs/cli.md has no section for {command}"
    assert {option for option in options if option not in section} == set()


def test_no_arguments_show_the_help() -> None:
    result = runner.invoke(app, [])
    assert "Usage: chatport" in result.output


def test_the_exit_codes_are_documented() -> None:
    table = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", (DOCS / "cli.md").read_text("utf-8"), re.MULTILINE))
    assert {int(code) for code in table} == {ending.value for ending in Ending}
