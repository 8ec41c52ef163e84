"""Stored completions: whose they are, and pages of them."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from chatport.policy.keys import Caller, Keys
from chatport.policy.stored import StoredCompletions, saving
from chatport.store import Store, open_store
from chatport.wire.chat import ChatCompletion, ChatRequest
from chatport.wire.errors import NotFound
from chatport.wire.stored import CompletionQuery, Order, Page
from support.accounts import written

numbers = count(1)


def asked(*contents: object, **more: object) -> ChatRequest:
    messages = [{"role": "user", "content": content} for content in contents or ("hi",)]
    return msgspec.convert({"model": "gpt-4", "messages": messages, "store": True} | more, ChatRequest)


def answered(created: int = 1_800_000_000, content: str = "hello") -> ChatCompletion:
    return msgspec.convert(
        {
            "id": f"chatcmpl-{next(numbers)}",
            "created": created,
            "model": "smollm2-135m",
            "choices": [
                {
                    "index": 0,
                    "message": {"content": content},
                    "finish_reason": "stop",
                    "logprobs": {
                        "content": [
                            {"token": "hello", "logprob": -0.1234567890123456, "bytes": [104], "top_logprobs": []}
                        ]
                    },
                }
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
            "system_fingerprint": "fp_1",
        },
        ChatCompletion,
    )


async def new_caller(store: Store) -> Caller:
    keys = Keys(store.keys)
    return keys.authenticate(f"Bearer {(await keys.create(name='n', now=1)).key}", 1)


async def save(store: Store, caller: Caller, completion: ChatCompletion, request: ChatRequest) -> ChatCompletion:
    """As a settlement does; returns it as `get` will."""
    await written(store, saving(caller, completion, request))
    return structs.replace(completion, metadata=request.metadata)


@pytest.fixture
async def caller(store: Store) -> Caller:
    return await new_caller(store)


@pytest.fixture
def stored(store: Store) -> StoredCompletions:
    return StoredCompletions(store.completions)


async def test_what_is_saved_is_got_back(store: Store, stored: StoredCompletions, caller: Caller) -> None:
    completion = answered()
    saved = await save(store, caller, completion, asked(metadata={"topic": "turtles"}))
    assert saved == structs.replace(completion, metadata={"topic": "turtles"})
    got = await stored.get(caller, completion.id)
    assert got == saved
    assert msgspec.json.encode(got) == msgspec.json.encode(saved)


async def test_without_metadata_it_is_null(store: Store, stored: StoredCompletions, caller: Caller) -> None:
    saved = await save(store, caller, answered(), asked())
    assert msgspec.to_builtins(await stored.get(caller, saved.id))["metadata"] is None


async def test_u0000_survives_everywhere(store: Store, stored: StoredCompletions, caller: Caller) -> None:
    text = "a\0b 🐢 \U0010ffff"
    request = asked(text, [{"type": "text", "text": text}], metadata={"k\0": text})
    saved = await save(store, caller, answered(content=text), request)
    got = await stored.get(caller, saved.id)
    assert got.choices[0].message.content == text
    assert got.metadata == {"k\0": text}
    assert [message.content for message in (await stored.messages(caller, saved.id, Page())).data] == [text, text]
    assert (await stored.list(caller, CompletionQuery(metadata={"k\0": text}))).data == [saved]


async def test_it_outlives_the_process(store_url: str, store: Store, caller: Caller) -> None:
    async with open_store(store_url) as earlier:
        saved = await save(earlier, caller, answered(), asked())
    assert await StoredCompletions(store.completions).get(caller, saved.id) == saved


async def test_for_another_key_it_does_not_exist(store: Store, stored: StoredCompletions, caller: Caller) -> None:
    saved = await save(store, caller, answered(), asked(metadata={"a": "b"}))
    other = await new_caller(store)
    for attempt in (
        stored.get(other, saved.id),
        stored.update_metadata(other, saved.id, None),
        stored.delete(other, saved.id),
        stored.messages(other, saved.id, Page()),
        stored.list(other, CompletionQuery(after=saved.id)),
    ):
        with pytest.raises(NotFound) as caught:
            await attempt
        assert (caught.value.status, caught.value.type, caught.value.code, caught.value.param) == (
            404,
            "not_found",
            "not_found",
            None,
        )
    assert (await stored.list(other, CompletionQuery())).data == []
    assert await stored.get(caller, saved.id) == saved


@pytest.mark.parametrize("metadata", [{"b": "2"}, {}, None])
async def test_metadata_is_replaced(
    store: Store, stored: StoredCompletions, caller: Caller, metadata: dict[str, str] | None
) -> None:
    saved = await save(store, caller, answered(), asked(metadata={"a": "1"}))
    updated = await stored.update_metadata(caller, saved.id, metadata)
    assert updated == structs.replace(saved, metadata=metadata) == await stored.get(caller, saved.id)
    assert (await stored.list(caller, CompletionQuery(metadata={"a": "1"}))).data == []


async def test_what_is_deleted_is_gone(store: Store, stored: StoredCompletions, caller: Caller) -> None:
    saved = await save(store, caller, answered(), asked())
    deleted = msgspec.to_builtins(await stored.delete(caller, saved.id))
    assert deleted == {"object": "chat.completion.deleted", "id": saved.id, "deleted": True}
    with pytest.raises(NotFound):
        await stored.get(caller, saved.id)
    with pytest.raises(NotFound):
        await stored.delete(caller, saved.id)


async def test_a_list_has_its_envelope(store: Store, stored: StoredCompletions, caller: Caller) -> None:
    first, second, third = [await save(store, caller, answered(), asked()) for _ in range(3)]
    page = await stored.list(caller, CompletionQuery(limit=2))
    assert (page.data, page.first_id, page.last_id, page.has_more) == ([first, second], first.id, second.id, True)
    page = await stored.list(caller, CompletionQuery(limit=2, after=second.id))
    assert (page.data, page.first_id, page.last_id, page.has_more) == ([third], third.id, third.id, False)
    page = await stored.list(caller, CompletionQuery(after=third.id))
    assert (page.data, page.first_id, page.last_id, page.has_more) == ([], None, None, False)


@pytest.mark.parametrize("model", ["gpt-4", "smollm2-135m"])
async def test_a_model_matches_by_either_name(
    store: Store, stored: StoredCompletions, caller: Caller, model: str
) -> None:
    saved = await save(store, caller, answered(), asked())
    assert (await stored.list(caller, CompletionQuery(model=model))).data == [saved]
    assert (await stored.list(caller, CompletionQuery(model="gpt-3.5-turbo"))).data == []


@pytest.mark.parametrize("after", ["chatcmpl-unknown", "a\0b", "\ufffd"])
async def test_an_unknown_after_is_not_found(
    store: Store, stored: StoredCompletions, caller: Caller, after: str
) -> None:
    saved = await save(store, caller, answered(), asked())
    with pytest.raises(NotFound, match="'after' names none"):
        await stored.list(caller, CompletionQuery(after=after))
    with pytest.raises(NotFound, match="'after' names none"):
        await stored.messages(caller, saved.id, Page(after=after))


async def test_messages_are_listed_in_the_order_they_were_sent(
    store: Store, stored: StoredCompletions, caller: Caller
) -> None:
    saved = await save(store, caller, answered(), asked("one", "two", "three"))
    page = await stored.messages(caller, saved.id, Page(limit=2))
    assert [(message.id, message.role, message.content) for message in page.data] == [
        (f"{saved.id}-0", "user", "one"),
        (f"{saved.id}-1", "user", "two"),
    ]
    assert (page.first_id, page.last_id, page.has_more) == (f"{saved.id}-0", f"{saved.id}-1", True)
    page = await stored.messages(caller, saved.id, Page(limit=2, after=page.last_id))
    assert ([message.content for message in page.data], page.has_more) == (["three"], False)
    page = await stored.messages(caller, saved.id, Page(order="desc", after=f"{saved.id}-2"))
    assert [message.content for message in page.data] == ["two", "one"]


async def walked(stored: StoredCompletions, caller: Caller, query: CompletionQuery) -> list[str]:
    """Every id, a page at a time, as the SDKs walk."""
    seen: list[str] = []
    more = True
    while more:
        page = await stored.list(caller, query)
        assert len(page.data) <= query.limit
        assert page.has_more <= (len(page.data) == query.limit)
        seen += [completion.id for completion in page.data]
        query, more = structs.replace(query, after=page.last_id), page.has_more
    return seen


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    made=st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["a", "b"])), max_size=12),
    limit=st.integers(1, 6),
    order=st.sampled_from(["asc", "desc"]),
    tag=st.none() | st.sampled_from(["a", "b"]),
)
async def test_walking_the_pages_shows_each_completion_once_and_in_order(
    store: Store, made: list[tuple[int, str]], limit: int, order: Order, tag: str | None
) -> None:
    """Times are few, so that most are equal: then the order of saving decides."""
    stored, caller = StoredCompletions(store.completions), await new_caller(store)
    saved = [await save(store, caller, answered(created), asked(metadata={"tag": value})) for created, value in made]
    wanted = [item for item in saved if tag is None or item.metadata == {"tag": tag}]
    expected = [item.id for item in sorted(wanted, key=lambda item: item.created)]
    query = CompletionQuery(limit=limit, order=order, metadata={} if tag is None else {"tag": tag})
    assert await walked(stored, caller, query) == (expected if order == "asc" else expected[::-1])
