"""Model files: how they are found, named, listed and removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatport.backends.llama import installed, weights
from chatport.backends.llama.catalogue import WeightsError
from chatport.backends.llama.locks import one_at_a_time
from support.downloads import Seen


def files(home: Path) -> set[str]:
    return {file.name for file in (home / "models").iterdir()}


def test_resolve_finds_files_and_says_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    mine = tmp_path / "models" / "mine.gguf"
    mine.write_bytes(b"GGUF")
    assert installed.resolve(str(mine), tmp_path) == mine
    assert installed.resolve("mine", tmp_path) == mine
    with pytest.raises(WeightsError, match=r"no model file .*other\.gguf\. The folder has: mine\.gguf\."):
        installed.resolve(str(mine.with_name("other.gguf")), tmp_path)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("smollm2-135m", "is not here yet. Fetch it with: chatport models pull smollm2-135m"),
        ("smolm2-135", 'There is no model "smolm2-135". Did you mean "smollm2-135m"? Models here: none.'),
        ("nothing", "smollm3-3b, and owner/repo/file.gguf of a hub. A .gguf file is named by its path."),
        ("no/x.gguf", "Its folder has no .gguf file."),
        ("./no/such/x.gguf", "Its folder has no .gguf file."),
        ("qwen3-4b", "is not here yet. Fetch it with: chatport models pull qwen3-4b"),
        ("own/repo/x", 'There is no model "own/repo/x" here, and no file of that path.'),
        ("own/repo/x.gguf", "fetch it with: chatport models pull own/repo/x.gguf"),
    ],
)
def test_a_missing_model_is_told_with_the_way_out(
    wanted: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "packaged_file", lambda _: None)
    with pytest.raises(WeightsError) as error:
        installed.resolve(wanted, tmp_path)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("smollm2", r'"smollm2" is not a model that can be pulled\. Did you mean "smollm2-135m"'),
        ("x.gguf", r"any other file of a hub is named owner/repo/file\.gguf"),
        ("../../etc/x.gguf", "is not a model that can be pulled"),
        ("own/../x.gguf", "is not a model that can be pulled"),
        ("own/repo/../../../x.gguf", "is not a model that can be pulled"),
        ("own/repo/x-00001-of-00003.gguf", "is one part of a model that was split"),
    ],
)
def test_what_can_not_be_pulled_is_told(name: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=sentence):
        weights.pull(name, tmp_path, Seen())
    assert list(tmp_path.iterdir()) == []


def test_files_of_hubs_are_listed_by_their_whole_name(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    here = ["mine.gguf", "own/repo/x.gguf", "own/repo/sub/y.gguf"]
    hidden = [
        "own/loose.gguf",
        "own/repo/z.gguf.0123456789ab.part",
        ".trash/repo/x.gguf",
        "own/repo/x.lock",
        "own/a/b.txt",
    ]
    for name in here + hidden:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    listed = [model for model in installed.list_models(tmp_path) if not model.packaged]
    assert [model.name for model in listed] == ["mine", "own/repo/sub/y", "own/repo/x"]
    assert {model.size for model in listed} == {5}
    for name in ("own/repo/x", "own/repo/x.gguf"):
        assert installed.resolve(name, tmp_path) == folder / "own/repo/x.gguf"


def test_a_hubs_file_is_removed_with_what_is_left_of_downloads(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "own" / "repo"
    folder.mkdir(parents=True)
    for name in ("x.gguf", "x.gguf.0123456789ab.part", "x.gguf.note", "xx.gguf"):
        (folder / name).write_bytes(b"12345")
    assert weights.remove("own/repo/x.gguf", tmp_path) == 10
    assert {file.name for file in folder.iterdir()} == {"x.gguf.note", "xx.gguf"}
    for name in ("own/repo/x", "own/repo/../../own/repo/xx", "/own/repo/xx"):
        with pytest.raises(WeightsError, match=r"no model .* to remove"):
            weights.remove(name, tmp_path)
    assert (folder / "xx.gguf").exists()


def test_a_model_that_is_being_fetched_is_not_removed(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    part = folder / "mine.gguf.0123456789ab.part"
    part.write_bytes(b"12345")
    with one_at_a_time(folder / "mine.lock", Seen()):
        with pytest.raises(WeightsError, match="Another process is fetching mine just now"):
            weights.remove("mine", tmp_path)
        assert part.exists()
    assert weights.remove("mine", tmp_path) == 5


def test_remove_frees_the_file_and_leftovers(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("mine.gguf", "mine.whl.part", "other.gguf"):
        (folder / name).write_bytes(b"12345")
    assert weights.remove("mine", tmp_path) == 10
    assert files(tmp_path) == {"other.gguf"}
    for name in ("mine", "../models/other", "other.gguf"):
        with pytest.raises(WeightsError, match=r"no model .* to remove"):
            weights.remove(name, tmp_path)
    assert files(tmp_path) == {"other.gguf"}
