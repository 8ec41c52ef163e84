"""One backend for all that is on the shelf: what it finds, when it looks, what it says of itself. Models made to order
here, which no engine would load; those that are loaded are in tests/blackbox/test_on_demand.py."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from chatport.backends.on_demand.backend import ENGINE_MEMORY, OnDemandBackend, OnDemandSettings, machine_memory
from chatport.backends.on_demand.shelf import ShelvedModel
from chatport.targets import Target
from chatport.wire.errors import ModelNotFound, Unavailable
from support.backend_suite import ask
from support.gguf_files import HEAD, gguf

SETTINGS = OnDemandSettings(
    idle_seconds=60,
    load_seconds=60,
    wait_seconds=5,
    max_loaded=1,
    max_memory=None,
    context=32,
    slots=1,
    threads=1,
    gpu_layers=0,
)


WHOLE = gguf()


class House:
    """A backend on an own folder, and what it told of its files."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "models"
        self.folder.mkdir()
        self.told: list[list[str]] = []
        self.backend = OnDemandBackend(home, SETTINGS, lambda model: model.name != "configured", self._hear)

    def _hear(self, models: Collection[ShelvedModel]) -> None:
        self.told.append([model.name for model in models])

    def put(self, name: str, content: bytes = WHOLE) -> None:
        (self.folder / f"{name}.gguf").write_bytes(content)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def target(name: str) -> Target:
    return Target(id=name, backend="on demand", model=name)


async def test_it_tells_of_changes_only_and_of_what_is_wanted(house: House) -> None:
    await house.backend.look()
    assert house.told == []
    house.put("b")
    house.put("configured")
    await house.backend.look()
    await house.backend.look()
    house.put("a")
    await house.backend.look()
    (house.folder / "b.gguf").unlink()
    await house.backend.look()
    assert house.told == [["b"], ["a", "b"], ["a"]]
    assert await house.backend.models(target("a")) == ["a"]


async def test_those_who_look_at_once_share_a_look_that_none_of_them_came_too_late_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    shelf = house.backend._shelf
    look = shelf.look

    def counted() -> list[ShelvedModel]:
        nonlocal looks
        looks += 1
        return look()

    monkeypatch.setattr(shelf, "look", counted)
    first = asyncio.create_task(house.backend.look())
    await asyncio.sleep(0)
    house.put("a")
    await asyncio.gather(first, *(house.backend.look() for _ in range(20)))
    assert looks == 2, "the first one's may have come too early for the others"
    assert house.told == [["a"]]


async def test_what_can_not_be_loaded_is_told_without_a_process(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """Not with its contents: it may be a link to anything."""
    house.put("broken", b"root:x:0:0")
    house.put("whole")
    await house.backend.look()
    with pytest.raises(Unavailable, match=r"^The file of the model broken can't be read as a model") as caught:
        await house.backend.bound(target("broken"), ask())
    assert "root" not in caught.value.message
    assert "broken.gguf is not a GGUF file: it begins with b'root'" in caplog.text
    with pytest.raises(Unavailable):
        await house.backend.probe(target("broken"))
    await house.backend.probe(target("whole"))
    assert house.backend.states() == {"broken": caught.value.message, "whole": "not loaded"}


async def test_a_file_that_breaks_before_it_is_loaded_tells_no_more(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.put("a")
    await house.backend.look()
    house.put("a", b"root:x:0:0")
    with pytest.raises(Unavailable, match=r"^The file of the model a can't be read as a model"):
        await house.backend.bound(target("a"), ask())
    await house.backend.close()
    assert "a.gguf is not a GGUF file: it begins with b'root'" in caplog.text


async def test_a_file_that_is_gone_is_an_unknown_model(house: House) -> None:
    with pytest.raises(ModelNotFound):
        await house.backend.bound(target("gone"), ask())


async def test_closed_it_is_not_there(house: House) -> None:
    house.put("a")
    await house.backend.look()
    await house.backend.close()
    await house.backend.close()
    with pytest.raises(Unavailable, match="shut down"):
        await house.backend.bound(target("a"), ask())


async def test_a_folder_that_can_not_be_read_leaves_what_was_known(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house.put("a")
    await house.backend.look()

    def broken() -> list[ShelvedModel]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(house.backend._shelf, "look", broken)
    await house.backend.look()
    assert list(house.backend.states()) == ["a"]
    assert "the folder of the models can't be read" in caplog.text


async def test_memory_is_weights_and_window_and_engine(house: House) -> None:
    layers = {"block_count": 2, "embedding_length": 8, "attention.head_count": 2}
    content = gguf(HEAD | {f"llama.{key}": value for key, value in layers.items()})
    house.put("a", content)
    (model,) = house.backend._shelf.look()
    assert SETTINGS.window(model) == 32, "the model was made for 64"
    assert SETTINGS.memory(model) == len(content) + 32 * (2 * 2 * (4 + 4) * 2) + ENGINE_MEMORY


def test_the_machine_has_memory() -> None:
    assert machine_memory() > 1 << 28
