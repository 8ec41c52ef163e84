"""Who is loaded, who waits, who has to go; models here take as long to load as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chatport.backends.on_demand.residents import Residents, Room
from chatport.backends.on_demand.shelf import ShelvedModel
from chatport.wire.errors import Unavailable

GB = 10**9


def shelved(name: str, size: int = GB) -> ShelvedModel:
    return ShelvedModel(name=name, path=Path(f"{name}.gguf"), size=size, changed_ns=0)


A, B, C, D = map(shelved, "ABCD")


class Model:
    def __init__(self, house: House, name: str) -> None:
        self.house = house
        self.name = name

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.house.events.append(f"-{self.name}")


class House:
    """Residents, and all that happened: `+A` loaded, `-A` closed, `!A` given up while loading."""

    def __init__(self, max_loaded: int = 2, max_memory: int = 100 * GB, wait: float = 5) -> None:
        self.events: list[str] = []
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.fault: Exception | None = None
        room = Room(max_loaded=max_loaded, max_memory=max_memory, wait_seconds=wait)
        self.residents = Residents(self._load, lambda model: model.size, room)

    async def _load(self, model: ShelvedModel) -> Model:
        try:
            await self.may_load.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.events.append(f"!{model.name}")
            raise
        if self.fault is not None:
            raise self.fault
        self.events.append(f"+{model.name}")
        return Model(self, model.name)

    async def use(self, model: ShelvedModel) -> None:
        async with self.residents.using(model) as loaded:
            assert loaded.name == model.name

    @asynccontextmanager
    async def used(self, *models: ShelvedModel) -> AsyncIterator[None]:
        """In use, each by a task of its own, until the block is left."""
        done = asyncio.Event()
        entered: list[str] = []

        async def hold(model: ShelvedModel) -> None:
            async with self.residents.using(model):
                entered.append(model.name)
                await done.wait()

        holding = [asyncio.create_task(hold(model)) for model in models]
        while len(entered) < len(models):
            await asyncio.sleep(0)
        yield
        done.set()
        await asyncio.gather(*holding)

    def states(self) -> str:
        return " ".join(self.residents.state(model) for model in (A, B))


async def settle() -> None:
    """Whatever can happen without anybody's doing has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_requests_at_once_load_it_once() -> None:
    house = House()
    await asyncio.gather(*(house.use(A) for _ in range(5)))
    await house.use(A)
    assert house.events == ["+A"]


async def test_its_state_can_be_asked() -> None:
    house = House()
    house.may_load.clear()
    assert house.states() == "not loaded not loaded"
    using = asyncio.create_task(house.use(A))
    await settle()
    assert house.states() == "loading not loaded"
    house.may_load.set()
    await using
    assert house.states() == "loaded not loaded"


async def test_the_one_used_least_recently_makes_room() -> None:
    house = House(max_loaded=2)
    for model in (A, B, A, C):
        await house.use(model)
    assert house.events == ["+A", "+B", "-B", "+C"], "the place is free before it is taken"


async def test_memory_makes_them_go_as_well() -> None:
    house = House(max_loaded=10, max_memory=3 * GB)
    for model in (A, B, C, shelved("big", 2 * GB)):
        await house.use(model)
    assert house.events == ["+A", "+B", "+C", "-A", "-B", "+big"]


async def test_what_never_fits_is_refused_and_nobody_goes() -> None:
    house = House(max_memory=3 * GB)
    await house.use(A)
    with pytest.raises(Unavailable, match=r"big needs about 4\.0 GB .* 3\.0 GB \(on_demand\.max_memory_bytes\)"):
        await house.use(shelved("big", 4 * GB))
    assert house.events == ["+A"]


async def test_one_that_is_used_stays_and_the_others_wait_in_turn() -> None:
    house = House(max_loaded=1)
    async with house.used(A):
        waiting = [asyncio.create_task(house.use(model)) for model in (B, C)]
        await settle()
        assert house.events == ["+A"]
    await asyncio.gather(*waiting)
    assert house.events == ["+A", "-A", "+B", "-B", "+C"]


async def test_nobody_waits_behind_an_endless_row_of_others() -> None:
    """While B waits for A's place, further requests for A queue up behind it."""
    house = House(max_loaded=1)
    async with house.used(A):
        first = asyncio.create_task(house.use(B))
        await settle()
        second = asyncio.create_task(house.use(A))
        await settle()
        assert not second.done()
    await asyncio.gather(first, second)
    assert house.events == ["+A", "-A", "+B", "-B", "+A"]


async def test_a_request_for_another_one_that_is_there_need_not_wait() -> None:
    house = House(max_loaded=2)
    async with house.used(A, B):
        waiting = asyncio.create_task(house.use(C))
        await settle()
        await house.use(B)
        assert not waiting.done()
    await waiting
    assert house.events[:2] == ["+A", "+B"]
    assert house.events[2:] == ["-A", "+C"], "A was used least recently"


async def test_one_who_waited_too_long_is_refused_and_nothing_has_changed() -> None:
    house = House(max_loaded=1, wait=0.02)
    async with house.used(A):
        with pytest.raises(Unavailable, match=r"in use for 0\.02 s") as caught:
            await house.use(B)
        assert caught.value.retry_after is not None
        await house.use(A)
    assert house.events == ["+A"]


async def test_one_who_left_while_waiting_leaves_no_trace() -> None:
    house = House(max_loaded=1)
    async with house.used(A):
        waiting = asyncio.create_task(house.use(B))
        await settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await house.use(A)
    await settle()
    assert house.events == ["+A"]


async def test_leaving_in_the_moment_of_admission_gives_the_place_back() -> None:
    house = House(max_loaded=1)
    async with house.used(A):
        waiting = asyncio.create_task(house.use(B))
        await settle()
    while house.residents.state(B) == "not loaded":
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await house.use(C)
    assert house.events[-1] == "+C"


async def test_who_leaves_while_it_loads_leaves_that_going() -> None:
    house = House()
    house.may_load.clear()
    first, second = (asyncio.create_task(house.use(A)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    house.may_load.set()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert house.events == ["+A"]


async def test_loading_for_nobody_ends_when_another_one_wants_the_place() -> None:
    house = House(max_loaded=1)
    house.may_load.clear()
    alone = asyncio.create_task(house.use(A))
    await settle()
    alone.cancel()
    await settle()
    assert house.states() == "loading not loaded"
    house.may_load.set()
    await house.use(B)
    assert house.events in (["!A", "+B"], ["+A", "-A", "+B"])


async def test_a_failure_is_told_to_all_who_waited_and_the_next_one_tries_again() -> None:
    house = House()
    house.fault = Unavailable("broken")
    outcomes = await asyncio.gather(house.use(A), house.use(A), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["broken", "broken"]
    house.fault = None
    await house.use(A)
    assert house.events == ["+A"]


async def test_a_failure_makes_room() -> None:
    house = House(max_loaded=1)
    house.may_load.clear()
    house.fault = Unavailable("broken")
    failing, waiting = asyncio.create_task(house.use(A)), asyncio.create_task(house.use(B))
    await settle()
    house.may_load.set()
    with pytest.raises(Unavailable, match="broken"):
        await failing
    with pytest.raises(Unavailable, match="broken"):
        await waiting


async def test_one_that_ended_by_itself_is_loaded_anew() -> None:
    house = House(max_loaded=1)
    async with house.used(A):
        house.residents.lost(A)
        assert house.states() == "not loaded not loaded"
        await house.use(A)
    assert house.events == ["+A", "+A"]


async def test_idle_ones_go_after_a_time_and_used_ones_never() -> None:
    house = House()
    await house.use(B)
    async with house.used(A):
        house.residents.unload_idle(60)
        await settle()
        assert house.states() == "loaded loaded"
        house.residents.unload_idle(0)
        await settle()
        assert house.states() == "loaded not loaded"
    assert house.events == ["+B", "+A", "-B"]


async def test_what_is_no_longer_on_the_shelf_goes_when_it_is_not_used() -> None:
    house = House()
    async with house.used(A):
        house.residents.keep_only([])
        await settle()
        assert house.events == ["+A"]
    house.residents.keep_only([])
    await settle()
    assert house.events == ["+A", "-A"]


async def test_closing_ends_everything() -> None:
    house = House(max_loaded=2)
    await house.use(A)
    house.may_load.clear()
    loading = asyncio.create_task(house.use(B))
    await settle()
    async with asyncio.timeout(5):
        await house.residents.close()
        await house.residents.close()
    with pytest.raises(Unavailable, match="shut down"):
        await loading
    with pytest.raises(Unavailable, match="shut down"):
        await house.use(A)
    assert sorted(house.events) == ["!B", "+A", "-A"]


async def test_closing_tells_those_who_wait() -> None:
    house = House(max_loaded=1)
    async with house.used(A):
        waiting = asyncio.create_task(house.use(B))
        await settle()
        await house.residents.close()
        with pytest.raises(Unavailable, match="shut down"):
            await waiting
