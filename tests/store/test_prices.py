"""Prices as rows: added when they are new, ended when they are not wanted, and otherwise never touched."""

from __future__ import annotations

from msgspec import Raw, json

from chatport.store import Store
from chatport.store.prices import COMMAND, LISTED, PriceRow, family, price_id


def row(model: str = "m", prompt: int = 1, **fields: object) -> PriceRow:
    default = {"id": price_id(), "source": COMMAND, "effective_at": 0, "created_at": 100}
    return PriceRow(model=model, rates=Raw(json.encode({"prompt": prompt})), **(default | fields))  # type: ignore[arg-type]


def every(_: PriceRow) -> bool:
    return True


async def test_what_is_wanted_is_there_and_nothing_else(store: Store) -> None:
    a, b = row("a"), row("b")
    done = await store.prices.replace([a, b], every, 100, "test")
    assert (done.added, done.ended, done.kept) == ((a, b), (), ())
    c = row("c")
    done = await store.prices.replace([row("a"), c], every, 200, "test")
    assert (done.added, [old.id for old in done.ended], [old.id for old in done.kept]) == ((c,), [b.id], [a.id])
    assert {each.id for each in await store.prices.open()} == {a.id, c.id}
    assert {each.id: each.ended_at for each in await store.prices.all()} == {a.id: None, b.id: 200, c.id: None}


async def test_what_is_not_concerned_stays(store: Store) -> None:
    a, b = row("a"), row("b")
    await store.prices.replace([a, b], every, 100, "test")
    await store.prices.replace([], lambda each: each.model == "a", 200, "test")
    assert [each.id for each in await store.prices.open()] == [b.id]


async def test_nothing_to_do_is_no_change(store: Store) -> None:
    await store.prices.replace([row("a")], every, 100, "test")
    before = await store.revisions.current(), await store.audit.latest(10)
    await store.prices.replace([row("a")], every, 200, "test")
    assert (await store.revisions.current(), await store.audit.latest(10)) == before


async def test_a_change_is_counted_and_noted(store: Store) -> None:
    before = (await store.revisions.current())["ledger"]
    await store.prices.set(row("a", 1), "somebody")
    await store.prices.set(row("a", 2), "somebody")
    await store.prices.replace([], every, 200, "somebody")
    assert (await store.revisions.current())["ledger"] == before + 3
    ended, changed, new = await store.audit.latest(10)
    assert [(each.action, each.subject, each.actor) for each in (new, changed, ended)] == [
        ("price.set", "a", "somebody"),
        ("price.set", "a", "somebody"),
        ("price.end", "a", "somebody"),
    ]
    assert changed.before is not None
    assert changed.after is not None
    assert json.decode(changed.before)["rates"] == {"prompt": 1}
    assert json.decode(changed.after)["rates"] == {"prompt": 2}
    assert (new.before, ended.after) == (None, None)


async def test_a_newer_list_adds_what_it_says_otherwise_and_is_one_note(store: Store) -> None:
    one, two = f"{LISTED} 1", f"{LISTED} 2"
    await store.prices.replace([row(f"p/{n}", n, source=one) for n in range(1200)], every, 100, "test")
    new = [row(f"p/{n}", n if n % 2 else n + 1, source=two) for n in range(1200)]
    done = await store.prices.replace(new, every, 200, "test")
    assert (len(done.added), len(done.ended), len(done.kept)) == (600, 600, 600)
    assert {each.source for each in done.kept} == {one}
    notes = await store.audit.latest(10)
    assert [(each.action, each.subject) for each in notes] == [("price.import", two), ("price.import", one)]


async def test_setting_a_price_takes_the_place_of_what_was_to_come(store: Store) -> None:
    early, late, other = row(effective_at=100), row(effective_at=300), row(source="configuration", effective_at=300)
    for each in (early, late, other, new := row(prompt=2, effective_at=200)):
        await store.prices.set(each, "test")
    assert {each.id for each in await store.prices.open()} == {early.id, other.id, new.id}


async def test_this_process_hears_of_it(store: Store) -> None:
    heard: list[int] = []
    store.prices._changed = lambda: heard.append(1)
    await store.prices.replace([row("a")], every, 100, "test")
    await store.prices.replace([row("a")], every, 100, "test")
    assert heard == [1]


def test_the_family_of_a_source() -> None:
    assert (family("genai-prices 0.2.3"), family(COMMAND)) == (LISTED, COMMAND)
