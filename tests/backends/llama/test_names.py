"""What is a name of a hub's file, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.backends.llama.catalogue import HubFile
from chatport.backends.llama.names import hub_file, is_repository, name_of


@pytest.mark.parametrize("wanted", ["Qwen/Qwen3-0.6B-GGUF/x-Q8_0", "Qwen/Qwen3-0.6B-GGUF/x-Q8_0.gguf"])
def test_with_or_without_its_ending(wanted: str) -> None:
    file = hub_file(wanted)
    assert file == HubFile("Qwen/Qwen3-0.6B-GGUF", "x-Q8_0.gguf")
    assert name_of(file) == "Qwen/Qwen3-0.6B-GGUF/x-Q8_0"


def test_a_file_in_a_folder_with_a_name_of_its_own() -> None:
    assert hub_file("a/b/sub folder/文件 (1).gguf") == HubFile("a/b", "sub folder/文件 (1).gguf")


@pytest.mark.parametrize(
    "wanted",
    [
        "x",
        "x.gguf",
        "a/b",
        "a/x.gguf",
        "/a/b/x.gguf",
        "./a/b/x.gguf",
        "~/a/x.gguf",
        "a/../x.gguf",
        "a/b/../x.gguf",
        "a/b/..",
        "a/b/.hidden.gguf",
        "a/b/.gguf",
        "a/b//x.gguf",
        "a//x.gguf",
        "a/b/",
        "a/b/x\\y.gguf",
        "C:/b/x.gguf",
        "a/b/x:y.gguf",
        "a/b/x\n.gguf",
        "a/b/ .gguf",
        "a/b/x\udcff.gguf",
        "a b/c/x.gguf",
        "a/b/" + "x" * 300,
        "https://host/a/b.gguf",
    ],
)
def test_what_is_no_name(wanted: str) -> None:
    assert hub_file(wanted) is None


@given(st.text("ab./\\:~ ", max_size=20))
def test_no_name_leads_out_of_its_folder(wanted: str) -> None:
    file = hub_file(wanted)
    if file is not None:
        parts = str(file).split("/")
        assert len(parts) >= 3
        assert not any(part in ("", ".", "..") or part.startswith(".") for part in parts)


@pytest.mark.parametrize(
    ("wanted", "is_one"), [("a/b", True), ("a/b/c", False), ("a", False), ("../b", False), ("a/", False)]
)
def test_repositories(wanted: str, is_one: bool) -> None:
    assert is_repository(wanted) is is_one
