"""What is on the shelf, without loading it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from chatport.backends.llama import gguf as heads
from chatport.backends.llama.installed import Installed
from chatport.backends.on_demand import shelf as shelves
from chatport.backends.on_demand.shelf import Shelf
from support.gguf_files import HEAD, gguf

LAYERS = {
    "llama.block_count": 3,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def every(model: Installed) -> bool:
    return True


def test_a_file_is_described_by_its_head(folder: Path) -> None:
    (folder / "small.gguf").write_bytes(gguf(HEAD | LAYERS))
    (model,) = Shelf(folder.parent, every).look()
    assert (model.name, model.context, model.fault) == ("small", 64, None)
    assert model.token_memory == 3 * 2 * (8 + 8) * 2, "layers, heads, key and value of 8 numbers, 2 bytes each"
    assert model.changed_ns == (folder / "small.gguf").stat().st_mtime_ns


@pytest.mark.parametrize(
    ("more", "memory"),
    [
        ({"llama.attention.head_count_kv": [2, 0, 4]}, 6 * 16 * 2),
        ({"llama.attention.key_length": 10, "llama.attention.value_length": 6}, 6 * 16 * 2),
        ({"llama.block_count": "three"}, 0),
    ],
)
def test_the_cache_of_other_shapes(folder: Path, more: dict[str, object], memory: int) -> None:
    (folder / "small.gguf").write_bytes(gguf(HEAD | LAYERS | more))
    assert Shelf(folder.parent, every).look()[0].token_memory == memory


def test_a_broken_file_is_there_with_its_fault(folder: Path) -> None:
    (folder / "broken.gguf").write_bytes(gguf()[:100])
    (model,) = Shelf(folder.parent, every).look()
    assert model.fault is not None
    assert "cut short" in model.fault


def test_a_head_is_read_once_for_each_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: Path) -> heads.ModelFile:
        read.append(path.name)
        return heads.read(path)

    monkeypatch.setattr(shelves, "read", counted)
    file = folder / "a.gguf"
    file.write_bytes(gguf())
    shelf = Shelf(folder.parent, every)
    assert shelf.look() == shelf.look()
    assert read == ["a.gguf"]
    os.utime(file, ns=(1, 1))
    assert shelf.look()[0].changed_ns == 1
    (folder / "b.gguf").write_bytes(gguf())
    assert [model.name for model in shelf.look()] == ["a", "b"]
    file.unlink()
    assert [model.name for model in shelf.look()] == ["b"]
    assert read == ["a.gguf", "a.gguf", "b.gguf"]


def test_what_is_not_wanted_is_not_even_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> heads.ModelFile:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(shelves, "read", refused)
    (folder / "served.gguf").write_bytes(gguf())
    assert Shelf(folder.parent, lambda model: model.name != "served").look() == []


@pytest.mark.timeout(10)
def test_what_can_be_no_model_hides_none(folder: Path) -> None:
    (folder / "small.gguf").write_bytes(gguf())
    (folder / "linked.gguf").symlink_to(folder / "small.gguf")
    (folder / "own" / "repo").mkdir(parents=True)
    for place in (folder, folder / "own" / "repo"):
        (place / "dangling.gguf").symlink_to("/nonexistent/x.gguf")
        (place / "loop.gguf").symlink_to(place / "loop.gguf")
        (place / "folder.gguf").mkdir()
        os.mkfifo(place / "pipe.gguf")
    assert [model.name for model in Shelf(folder.parent, every).look()] == ["linked", "small"]


@pytest.mark.parametrize("name", [b'a"b\n\x1b[31m', b"caf\xe9", b" ", b"", b".hidden", b" x", b"x\xe2\x80\xae"])
def test_a_name_that_no_model_may_have_is_passed_over(folder: Path, name: bytes) -> None:
    (folder / "small.gguf").write_bytes(gguf())
    with suppress(OSError):  # where the file system takes no such name either
        (folder / os.fsdecode(name + b".gguf")).write_bytes(gguf())
    assert [model.name for model in Shelf(folder.parent, every).look()] == ["small"]


def test_no_folder_is_an_empty_shelf(tmp_path: Path) -> None:
    assert Shelf(tmp_path / "nowhere", every).look() == []
