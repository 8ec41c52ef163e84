"""What is kept with a request: what was said, where the key or the configuration says so; the stored completion."""

from __future__ import annotations

import pytest

from chatport.policy.keeping import Keeping, Kept
from chatport.policy.keys import Caller
from chatport.wire.chat import ChatCompletion
from chatport.wire.decode import decode_request
from chatport.wire.tally import usage_of
from support.accounts import written
from support.memory import memory_store

BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
ANSWER = ChatCompletion(
    id="chatcmpl-1", created=1, model="m", choices=[], usage=usage_of(1, 1), system_fingerprint="fp_1"
)


def kept(keeping: Keeping, of_key: bool | None = None, body: bytes = BODY) -> Kept:
    caller = Caller("key_1", "k", admin=False, models=None, keeps_content=of_key)
    return keeping.of(caller, decode_request(body), "req_1", body, 10.5)


@pytest.mark.parametrize(
    ("configured", "of_key", "is_kept"),
    [(False, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
def test_the_key_has_the_last_word(configured: bool, of_key: bool | None, is_kept: bool) -> None:
    one = kept(Keeping(contents=configured), of_key)
    assert one.wants_answer is bool(one.works()) is is_kept


@pytest.mark.parametrize("whole", [True, False])
async def test_what_is_kept_has_its_end(whole: bool) -> None:
    store, database = memory_store()
    one = kept(Keeping(contents=True, days=2))
    if whole:
        one.answer(ANSWER)
    await written(store, *one.works(), *one.works())
    [row] = database.peek("SELECT request_id, request, reply, expires_at FROM contents")
    assert (row[0], row[1], row[3]) == ("req_1", BODY, 10 + 2 * 86_400)
    assert (row[2] is not None and b"chatcmpl-1" in row[2]) is whole
    assert await store.contents.prune(10 + 2 * 86_400, 10) == 1


def test_a_completion_is_stored_where_its_client_wants_that_and_it_is_whole() -> None:
    one = kept(Keeping(), body=BODY[:-1] + b',"store":true}')
    assert one.wants_answer
    assert one.works() == ()
    one.answer(ANSWER)
    assert len(one.works()) == 1


def test_what_is_kept_is_not_said_by_its_repr() -> None:
    assert "Hi" not in repr(kept(Keeping(contents=True)))
