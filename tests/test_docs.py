"""What the documentation promises: links lead somewhere, examples are valid, both languages say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chatport.config import load
from chatport.wire import errors

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
