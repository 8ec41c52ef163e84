"""What the documentation promises: links lead somewhere, examples are valid, both languages say the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chatport.config import load
from chatport.providers import PROVIDERS
from chatport.wire import errors
from support.javascript import NODE_MODULES, node
from support.serving import Server

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]

LINK = re.compile(r"\[[^]]+\]\(([^)#:]+)\)")
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def without_remarks(code: str) -> str:
    """The code alone: what is after ` # ` or ` // `, and how far it stands from the code, may differ."""
    return "\n".join(re.sub(r"\s+(#|//) .*", "", line) for line in code.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("readme", READMES, ids=lambda page: page.name)
def test_the_configuration_shown_is_valid(readme: Path, tmp_path: Path) -> None:
    (shown,) = blocks(readme, "toml")
    file = tmp_path / "chatport.toml"
    file.write_text(shown, encoding="utf-8")
    config = load(file, {"CHATPORT_HOME": str(tmp_path)})
    assert [model.id for model in config.models] == ["my-model", "echo"]


@pytest.mark.parametrize("language", ["sh", "json", "python", "javascript", "toml"])
def test_both_languages_show_the_same(language: str) -> None:
    english, chinese = (list(map(without_remarks, blocks(readme, language))) for readme in READMES)
    assert english
    assert chinese == english


def ask_as_shown(server: Server, command: list[str], script: Path) -> str:
    """Runs one of the README's programs with the two variables it speaks of; what it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environ |= {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": server.key, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([*command, str(script)], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_curl_shown_runs(scripted_server: Server, tmp_path: Path) -> None:
    script = tmp_path / "readme.sh"
    export, shown = blocks(READMES[0], "sh")[1].split("\n", 1)
    assert export.startswith("export OPENAI_BASE_URL=")
    script.write_text(shown, encoding="utf-8")
    assert '"content":"What is the capital of France?"' in ask_as_shown(scripted_server, ["bash"], script)


def test_the_python_shown_runs(scripted_server: Server, tmp_path: Path) -> None:
    script = tmp_path / "readme.py"
    script.write_text(blocks(READMES[0], "python")[0], encoding="utf-8")
    assert ask_as_shown(scripted_server, [sys.executable], script) == "Name three fruits."


def test_the_javascript_shown_runs(scripted_server: Server, tmp_path: Path) -> None:
    script = tmp_path / "readme.mjs"
    script.write_text(blocks(READMES[0], "javascript")[0], encoding="utf-8")
    runner = node()
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    assert ask_as_shown(scripted_server, [runner], script) == "Name three fruits.\n"


@pytest.mark.parametrize("heading", [2, 3])
def test_both_languages_have_the_same_sections(heading: int) -> None:
    mark = re.compile(rf"^{'#' * heading} ", re.MULTILINE)
    english, chinese = (len(mark.findall(readme.read_text(encoding="utf-8"))) for readme in READMES)
    assert english == chinese


def test_every_kind_of_error_is_in_the_api_page() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ApiError)]
    said = {word for kind in kinds for word in (kind.type, kind.default_code) if word is not None}
    assert [word for word in said if f"`{word}`" not in page] == []


def test_every_known_provider_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name, provider in PROVIDERS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert (provider.base_url or "base_url") in row
        assert (provider.key_env or "none needed") in row
