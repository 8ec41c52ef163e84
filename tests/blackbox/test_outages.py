"""Servers that are stopped, databases that do not answer, are restarted, or have no room left: what a client is told,
and what the account says when it is over."""

from __future__ import annotations

import asyncio
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.between import between
from support.books import books, compare, settled
from support.counted import Counted, counted
from support.crowd import Crowd, Had, crowd
from support.databases import emptied, on_server, session_postgres, store_url
from support.lives import NewKey, Program, configured, living, prepared

__all__ = ["session_postgres", "store_url"]

LONG = 60
"""Words of an answer during which something happens."""

SHORT_TIMES = "import chatport.store.postgres as p; p.ANSWER_TIMEOUT = 1.0; p.CONNECT_TIMEOUT = 0.5\n"
"""So that a test need not wait for a database as long as the program does."""


THE_OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def keys() -> list[NewKey]:
    return [NewKey("free"), NewKey("rich", amount=10**9)]


def long_ones(clients: Crowd) -> list[asyncio.Task[Had | None]]:
    """Answers of half a second and more: streams and whole ones, of a key with a budget and of one without."""
    asked = [(key, stream) for key in clients.keys for stream in (True, True, False)]
    return [asyncio.create_task(clients.ask(key, model="says", seed=LONG, stream=stream)) for key, stream in asked]


async def had_of(tasks: list[asyncio.Task[Had | None]]) -> list[Had]:
    return [had for had in await asyncio.gather(*tasks) if had is not None]


async def asked_for_more(clients: Crowd) -> list[Had]:
    """Short requests of every kind, one after the other answered within reason."""
    asked = [(key, stream) for key in clients.keys for stream in (True, False)]
    tasks = [asyncio.create_task(clients.ask(key, model="says", seed=3, stream=stream)) for key, stream in asked]
    return await had_of(tasks)


async def until_served(clients: Crowd, within: float = 10.0) -> None:
    """Returns when a request is answered again."""
    deadline = time.monotonic() + within
    while any(had.status != 200 for had in await asked_for_more(clients)):
        assert time.monotonic() < deadline, "it does not answer again"
        await asyncio.sleep(0.2)


def check_refused(refused: list[Had], upstream: Counted, read: Any) -> None:
    """503 with a time to come back, nothing served, nothing paid."""
    assert {(had.status, had.code) for had in refused} == {(503, "service_unavailable")}
    for had in refused:
        assert int(had.headers["retry-after"]) >= 1
        assert had.request_id not in upstream.served
        posting = read.postings.get(had.request_id)
        assert posting is None or (posting.ending, posting.prompt_tokens) == ("refused", 0)


def check_told(had: list[Had], read: Any, told: set[tuple[int, str | None]]) -> None:
    """Answers under way when it happened: the clients were told, and they are posted with all that they had."""
    assert {(one.status, one.code) for one in had} <= told, had
    for one in had:
        assert read.postings[one.request_id].completion_tokens >= one.words


# --- SIGTERM ---------------------------------------------------------------------------------------------------------


async def test_a_server_that_is_stopped_leaves_nothing_open(tmp_path: Path, store_url: str) -> None:
    rng = random.Random(5)
    await prepared(store_url, *(both := keys()))
    async with counted(pause=0.01) as upstream:
        models = [upstream.model(name) for name in ("says", "silent", "breaks")]
        config = configured(store_url, *models, more="[server]\ndrain_seconds = 0.3\n")
        program = Program(tmp_path / "home", config)
        async with crowd(program.url, both, ["says", "silent", "breaks"], rng) as clients:
            for _ in range(2):
                await program.start()
                stopped = asyncio.Event()
                working = asyncio.create_task(clients.many(8, stopped.is_set))
                await asyncio.wait({working}, timeout=0.4)
                late = long_ones(clients)
                await asyncio.sleep(0.05)
                await program.terminate()
                stopped.set()
                await working
                ended = await had_of(late)
                read = await books(store_url)
                assert not read.holds
                check_told(ended, read, {(200, "service_unavailable"), (503, "service_unavailable")})
                assert {read.postings[one.request_id].ending for one in ended} == {"stopped"}
    compare(read, upstream, clients, {})


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


async def test_a_database_that_stops_answering_and_comes_back(tmp_path: Path, session_postgres: str) -> None:
    await emptied(session_postgres)
    await prepared(session_postgres, *(both := keys()))
    async with counted(pause=0.01) as upstream, between(session_postgres) as (network, address):
        program = Program(tmp_path / "home", configured(address, upstream.model("says")), before=SHORT_TIMES)
        async with living(program), crowd(program.url, both, ["says"], random.Random(1)) as clients:
            await until_served(clients)
            under_way = long_ones(clients)
            await asyncio.sleep(0.2)
            network.stop()
            refused = await asked_for_more(clients)
            assert (await clients.http.get("/readyz")).status_code == 503
            broken = await had_of(under_way)
            slowest = clients.slowest
            network.go_on()
            await until_served(clients)
            read = await settled(session_postgres)
    check_refused(refused, upstream, read)
    check_told(broken, read, {(200, "service_unavailable"), (503, "service_unavailable")})
    compare(read, upstream, clients, {})
    assert slowest < 8, slowest


async def test_a_database_that_is_restarted_under_load(tmp_path: Path, session_postgres: str) -> None:
    await emptied(session_postgres)
    await prepared(session_postgres, *(both := keys()))
    cut = f"SELECT pg_terminate_backend(pid) {THE_OTHERS}"
    async with counted(pause=0.002) as upstream:
        models = [upstream.model(name) for name in ("says", "silent", "breaks")]
        program = Program(tmp_path / "home", configured(session_postgres, *models), before=SHORT_TIMES)
        names = ["says", "silent", "breaks"]
        async with living(program), crowd(program.url, both, names, random.Random(2)) as clients:
            enough = asyncio.Event()
            working = asyncio.create_task(clients.many(12, enough.is_set))
            for _ in range(8):
                await asyncio.wait({working}, timeout=0.25)
                await on_server(session_postgres, cut)
            enough.set()
            await working
            await until_served(clients)
            read = await settled(session_postgres)
    compare(read, upstream, clients, {})
    assert {had.status for had in clients.had} <= {200, 500, 502, 503}
    assert Counter(posting.ending for posting in read.postings.values())["complete"] > 20


# --- A full disk ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def small_disk(home: Path) -> AsyncIterator[tuple[Callable[[Program], None], Callable[[Program], None]]]:
    """A file system of 2 MB, filled to its last byte and emptied again."""
    home.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(home)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("file systems can't be mounted here")

    def fill(program: Program) -> None:
        with (home / "filler").open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                return

    try:
        yield fill, lambda program: (home / "filler").unlink()
    finally:
        subprocess.run(["umount", str(home)], check=True)


@asynccontextmanager
async def limited_files(home: Path) -> AsyncIterator[tuple[Callable[[Program], None], Callable[[Program], None]]]:
    """No file may be written to."""
    if sys.platform != "linux":
        pytest.skip("limits of other processes can't be set here")

    def limit(program: Program, size: int) -> None:
        assert program.process is not None
        resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    yield lambda program: limit(program, 0), lambda program: limit(program, resource.RLIM_INFINITY)


@pytest.mark.parametrize("disk", [small_disk, limited_files])
async def test_a_disk_that_is_full_and_has_room_again(tmp_path: Path, disk: Any) -> None:
    async with disk(tmp_path / "disk") as (fill, make_room), counted(pause=0.01) as upstream:
        address = f"sqlite:///{tmp_path}/disk/chatport.db"
        await prepared(address, *(both := keys()))
        program = Program(tmp_path / "home", configured(address, upstream.model("says")))
        async with living(program), crowd(program.url, both, ["says"], random.Random(3)) as clients:
            await until_served(clients)
            under_way = long_ones(clients)
            await asyncio.sleep(0.2)
            fill(program)
            refused: list[Had] = []
            async with asyncio.timeout(20):
                # A log that starts anew has room where it was: it may take a while until there is none.
                while len(refused) < 4:
                    refused += [had for had in await asked_for_more(clients) if had.status != 200]
            broken = await had_of(under_way)
            make_room(program)
            await until_served(clients)
            read = await settled(address)
    check_refused(refused, upstream, read)
    check_told(broken, read, {(200, None), (200, "service_unavailable"), (503, "service_unavailable")})
    compare(read, upstream, clients, {})
