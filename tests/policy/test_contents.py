"""What was said is kept where the key says so, else where the configuration does."""

from __future__ import annotations

import pytest

from chatport.policy.contents import Contents
from chatport.policy.keys import Caller
from support.memory import memory_store


def caller(keeps: bool | None) -> Caller:
    return Caller("key_1", "k", admin=False, models=None, keeps_content=keeps)


@pytest.mark.parametrize(
    ("configured", "of_key", "kept"),
    [(False, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
def test_the_key_has_the_last_word(configured: bool, of_key: bool | None, kept: bool) -> None:
    keeping = Contents(keeps=configured).of(caller(of_key), "req_1", b"{}", 0)
    assert (keeping is not None) == kept


@pytest.mark.parametrize("reply", [b'{"a":1}', None])
async def test_what_is_kept_has_its_end(reply: bytes | None) -> None:
    store, database = memory_store()
    keeping = Contents(keeps=True, days=2).of(caller(None), "req_1", b"{}", 10.5)
    assert keeping is not None
    await database.write(keeping(reply))
    [row] = database.peek("SELECT request_id, request, reply, expires_at FROM contents")
    assert row == ("req_1", b"{}", reply, 10 + 2 * 86_400)
    assert await store.contents.prune(10 + 2 * 86_400, 10) == 1
