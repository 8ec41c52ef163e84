"""The store as a whole: addresses, and word of changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from chatport.store import Store, open_store
from chatport.store.errors import StoreMisconfigured, StoreUnavailable
from chatport.store.keys import KeyRow
from chatport.store.store import POLL_INTERVAL


def key(number: int = 1) -> KeyRow:
    return KeyRow(
        id=f"key_{number}",
        name="n",
        digest=bytes([number]) * 32,
        prefix="sk-cp-",
        admin=False,
        models=None,
        created_at=number,
    )


class Bell:
    """A callback that can be waited for; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.rings = 0
        self.rang = asyncio.Event()
        self._failures = failures

    async def ring(self) -> None:
        if self._failures:
            self._failures -= 1
            raise StoreUnavailable("not now")
        self.rings += 1
        self.rang.set()

    async def heard(self) -> None:
        """Waits far longer than the promised second, which the polling interval keeps."""
        async with asyncio.timeout(10):
            await self.rang.wait()
        self.rang.clear()


def test_the_polling_interval_keeps_the_promised_second() -> None:
    assert POLL_INTERVAL <= 0.5


async def test_the_watch_tells_of_another_process(store_url: str, store: Store) -> None:
    bell = Bell()
    store.watch(bell.ring)
    async with open_store(store_url) as other:
        await other.keys.add(key())
        await bell.heard()
        await other.keys.revoke("key_1", 5)
        await bell.heard()
    assert bell.rings == 2


async def test_the_watch_tells_at_once_of_what_changed_here(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatport.store.store.POLL_INTERVAL", 3600.0)
    async with open_store(store_url) as store:
        bell = Bell()
        store.watch(bell.ring)
        await store.keys.add(key())
        await bell.heard()
        await store.keys.revoke("key_1", 5)
        await bell.heard()


async def test_the_watch_says_nothing_when_nothing_changed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bell = Bell()
    store.watch(bell.ring)
    await store.keys.revoke("key_unknown", 5)
    await store.keys.add(key())
    await bell.heard()
    await store.keys.add(key())
    await store.keys.revoke("key_1", 5)
    await bell.heard()
    await store.keys.revoke("key_1", 6)
    assert bell.rings == 2


async def test_a_callback_that_fails_is_called_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    bell = Bell(failures=2)
    store.watch(bell.ring)
    await store.keys.add(key())
    await bell.heard()
    told = [record.message for record in caplog.records]
    assert told.count("changes of keys and rules can't be followed for now") == 1


async def test_a_watch_can_be_ended(store: Store) -> None:
    ended, going_on = Bell(), Bell()
    stop: Callable[[], None] = store.watch(ended.ring)
    store.watch(going_on.ring)
    stop()
    await store.keys.add(key())
    await going_on.heard()
    assert ended.rings == 0


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.ping()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "chatport.db",
        "mysql://root:geheim@127.0.0.1/db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file.db?mode=ro",
        "sqlite+aiosqlite",
        "postgresql://user:geheim@host:port/db",
    ],
)
async def test_an_address_that_can_not_be_used_is_explained_without_its_password(url: str) -> None:
    with pytest.raises(StoreMisconfigured, match=r"Allowed: sqlite:///.* or postgresql://") as caught:
        async with open_store(url):
            pass
    assert "geheim" not in str(caught.value)
