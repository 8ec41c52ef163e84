"""Usage added up: each posting counts once, rolled up or not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from chatport.store import Store, open_store
from chatport.store.usage import By
from support.memory import memory_store
from support.postings import HOUR_MS, begin, post, posting_row


async def rolled_up(store: Store) -> list[Any]:
    query = text(
        "SELECT hour, key_id, owner, end_user, model, requests, failed, charge_nano FROM usage_hours ORDER BY 1"
    )
    return [tuple(row) for row in await store._database.read(lambda connection: [*connection.execute(query)])]


async def roll_up(store: Store, limit: int = 1000) -> None:
    upto = await store.usage.horizon()
    while await store.usage.roll_up(upto, limit):
        pass


async def test_hours_hold_what_postings_came_to(store: Store) -> None:
    await post(store, owner="alice", end_user="u")
    await post(store, owner="alice", end_user="u", ending="client_gone")
    await post(store, created_ms=2 * HOUR_MS)
    await roll_up(store)
    assert await rolled_up(store) == [
        (3600, "key_1", "alice", "u", "m", 2, 1, 140),
        (7200, "key_1", "", "", "m", 1, 0, 70),
    ]


async def test_rolling_up_again_adds_nothing(store: Store) -> None:
    await post(store)
    for _ in range(3):
        await roll_up(store)
    await post(store)
    before = await store.usage.sums("key")
    await roll_up(store)
    assert await store.usage.sums("key") == before
    assert [row[5] for row in await rolled_up(store)] == [2]


async def test_two_that_roll_up_at_once_add_each_posting_once(store: Store, store_url: str) -> None:
    for _ in range(20):
        await post(store)
    async with open_store(store_url) as other:
        await asyncio.gather(*(roll_up(each, limit=3) for each in (store, other, store, other)))
    assert [row[5] for row in await rolled_up(store)] == [20]
    assert [each.requests for each in await store.usage.sums("key")] == [20]


async def test_a_posting_that_is_committed_late_is_not_left_out(store: Store, store_url: str) -> None:
    """Its number is lower than that of one that was there before: what PostgreSQL can do."""
    if store_url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time")
    engine = store._database._engine  # type: ignore[attr-defined]
    columns = posting_row("req_late")
    names = ", ".join(columns.__struct_fields__)
    values = ", ".join(f":{name}" for name in columns.__struct_fields__)
    async with engine.connect() as slow:
        await slow.execute(
            text(f"INSERT INTO postings ({names}) VALUES ({values})"),
            {name: getattr(columns, name) for name in columns.__struct_fields__},
        )
        await post(store)
        rolling = asyncio.create_task(roll_up(store))
        await asyncio.sleep(0.2)
        assert [each.requests for each in await store.usage.sums("key")] == [1]
        await slow.commit()
        await rolling
    assert [row[5] for row in await rolled_up(store)] == [2]


async def test_what_is_no_request_is_no_usage(store: Store) -> None:
    await post(store)
    await store._database.write(
        lambda connection: connection.execute(text("UPDATE postings SET kind = 'correction'")).close()
    )
    assert await store.usage.sums("key") == []
    await roll_up(store)
    assert await rolled_up(store) == []


@pytest.mark.parametrize("rolled", [False, True])
@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("key", [("key_1", 3)]),
        ("owner", [("alice", 2), ("", 1)]),
        ("user", [("", 2), ("u", 1)]),
        ("model", [("m", 2), ("n", 1)]),
        ("day", [(0, 1), (86_400, 2)]),
    ],
)
async def test_sums_by_each_kind_of_group(store: Store, by: By, groups: list[Any], rolled: bool) -> None:
    await post(store, owner="alice", end_user="u", charge_nano=1)
    await post(store, owner="alice", created_ms=24 * HOUR_MS, charge_nano=99)
    await post(store, model="n", created_ms=25 * HOUR_MS, charge_nano=50)
    if rolled:
        await roll_up(store)
    assert [(each.group, each.requests) for each in await store.usage.sums(by)] == groups


@pytest.mark.parametrize("rolled", [False, True])
async def test_sums_since_an_hour_and_of_one_key(store: Store, rolled: bool) -> None:
    await post(store)
    await post(store, created_ms=2 * HOUR_MS)
    await post(store, created_ms=2 * HOUR_MS, key_id="key_2")
    if rolled:
        await roll_up(store)
    assert [each.requests for each in await store.usage.sums("model", since=2 * 3600 + 59)] == [2]
    assert [each.requests for each in await store.usage.sums("model", 0, key_id="key_1")] == [2]
    assert await store.usage.sums("model", since=3 * 3600) == []


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("post"),
            st.integers(0, 60),
            st.sampled_from(["key_1", "key_2"]),
            st.sampled_from([None, "alice"]),
            st.integers(0, 9),
        ),
        st.tuples(st.just("roll"), st.integers(1, 4)),
        st.tuples(st.just("drop"), st.integers(0, 60)),
    ),
    max_size=25,
)


@given(STEPS, st.integers(1, 59))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_rolled_up_and_removed_the_sums_are_those_of_all_requests(
    steps: list[Any], since_hour: int
) -> None:
    async def play() -> None:
        store, _ = memory_store()
        posted: list[tuple[int, str, int]] = []
        for step in steps:
            match step:
                case ("post", hour, key, owner, charge):
                    await post(store, created_ms=hour * HOUR_MS, key_id=key, owner=owner, charge_nano=charge)
                    posted.append((hour, key, charge))
                case ("roll", limit):
                    await store.usage.roll_up(await store.usage.horizon(), limit)
                case ("drop", hour):
                    await store.retention.drop(hour * HOUR_MS, 2)
            for since in (0, since_hour, 24):
                wanted = [(key, charge) for hour, key, charge in posted if hour >= since]
                days = {hour // 24 for hour, _, _ in posted if hour >= since}
                groups: list[tuple[By, int]] = [("key", len({key for key, _ in wanted})), ("day", len(days))]
                for by, count in groups:
                    found = await store.usage.sums(by, since * 3600)
                    assert len(found) == count
                    assert sum(each.requests for each in found) == len(wanted)
                    assert sum(each.charge_nano for each in found) == sum(charge for _, charge in wanted)

    asyncio.run(play())


async def test_a_request_that_runs_is_no_usage_yet(store: Store) -> None:
    await begin(store)
    assert await store.usage.sums("key") == []
