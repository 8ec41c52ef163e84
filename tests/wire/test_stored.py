"""Queries of stored completions, and messages as they are shown."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.wire.chat import Message
from chatport.wire.errors import InvalidRequest
from chatport.wire.stored import (
    CompletionQuery,
    Page,
    completion_list,
    decode_completion_query,
    decode_page,
    message_list,
    stored_message,
)


@pytest.mark.parametrize(
    ("query", "page"),
    [
        (b"", Page()),
        (b"limit=1&order=desc&after=chatcmpl-1-0", Page(limit=1, order="desc", after="chatcmpl-1-0")),
        (b"limit=100&order=asc", Page(limit=100)),
        (b"after=", Page()),
        (b"limit=3&limit=5", Page(limit=5)),
        (b"unknown=1&&;=x&%zz=1", Page()),
        (b"after=a%00b%C3%A9", Page(after="a\0bé")),
        (b"after=%ff\xff", Page(after="\ufffd\ufffd")),
    ],
)
def test_a_page_is_decoded(query: bytes, page: Page) -> None:
    assert decode_page(query) == page


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (b"model=gpt-4&limit=2", CompletionQuery(model="gpt-4", limit=2)),
        (b"model=", CompletionQuery()),
        (b"metadata[topic]=turtles&metadata[a]=", CompletionQuery(metadata={"topic": "turtles", "a": ""})),
        (b"metadata%5Btopic%5D=big+turtles", CompletionQuery(metadata={"topic": "big turtles"})),
        (b"metadata[a[b]]=%F0%9F%90%A2", CompletionQuery(metadata={"a[b]": "🐢"})),
        (b"metadata=x&metadata[=y&metadata]=z", CompletionQuery()),
    ],
)
def test_a_query_for_completions_is_decoded(query: bytes, wanted: CompletionQuery) -> None:
    assert decode_completion_query(query) == wanted


@pytest.mark.parametrize(
    ("query", "param", "code", "quoted"),
    [
        (b"limit=0", "limit", "integer_below_min_value", "got 0"),
        (b"limit=-5", "limit", "integer_below_min_value", "got -5"),
        (b"limit=101", "limit", "integer_above_max_value", "got 101"),
        (b"limit=999999999999999999", "limit", "integer_above_max_value", "<= 100"),
        (b"limit=", "limit", "invalid_type", '""'),
        (b"limit=ten", "limit", "invalid_type", '"ten"'),
        (b"limit=1.5", "limit", "invalid_type", '"1.5"'),
        (b"limit=1_0", "limit", "invalid_type", '"1_0"'),
        (b"limit=%EF%BC%95", "limit", "invalid_type", "an integer from 1 to 100"),
        (b"limit=" + b"9" * 5000, "limit", "invalid_type", "999…"),
        (b"order=up", "order", "invalid_value", "'asc' and 'desc'"),
        (b"order=", "order", "invalid_value", '""'),
        (b"order=DESC", "order", "invalid_value", '"DESC"'),
    ],
)
def test_a_fault_names_its_parameter(query: bytes, param: str, code: str, quoted: str) -> None:
    for decode in (decode_page, decode_completion_query):
        with pytest.raises(InvalidRequest) as caught:
            decode(query)
        assert (caught.value.param, caught.value.code) == (param, code)
        assert quoted in caught.value.message


def test_too_many_filters_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="at most 16, but got 17") as caught:
        decode_completion_query(b"&".join(b"metadata[%d]=x" % n for n in range(17)))
    assert (caught.value.param, caught.value.code) == ("metadata", "object_above_max_properties")


def test_a_query_with_too_many_parameters_is_refused_unread() -> None:
    with pytest.raises(InvalidRequest, match="at most 64"):
        decode_page(b"a=1&" * 65)


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f"limit={text}&order={text}".encode()))
def test_any_query_is_decoded_or_refused(query: bytes) -> None:
    try:
        page = decode_completion_query(query)
    except InvalidRequest:
        return
    assert 1 <= page.limit <= 100


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({"role": "user", "content": "hi"}, {"role": "user", "content": "hi"}),
        (
            {"role": "developer", "content": "be brief", "name": "ops"},
            {"role": "developer", "name": "ops", "content": "be brief"},
        ),
        ({"role": "system", "content": ""}, {"role": "system", "content": ""}),
        (
            {"role": "user", "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "is it?"}]},
            {
                "role": "user",
                "content": "What is it?",
                "content_parts": [{"type": "text", "text": "What "}, {"type": "text", "text": "is it?"}],
            },
        ),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}}],
            },
            {
                "role": "user",
                "content": None,
                "content_parts": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}}],
            },
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}]},
            {"role": "user", "content": None, "content_parts": []},
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "assistant", "content": None, "refusal": "No.", "content_parts": []},
        ),
        (
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "assistant", "content": None, "refusal": "No."},
        ),
        (
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        ),
        (
            {"role": "tool", "content": "22 °C", "tool_call_id": "c1"},
            {"role": "tool", "content": "22 °C", "tool_call_id": "c1"},
        ),
        ({"role": "function", "name": "f", "content": None}, {"role": "function", "name": "f", "content": None}),
    ],
)
def test_a_message_is_shown_as_the_api_shows_it(sent: dict[str, object], shown: dict[str, object]) -> None:
    message: Message = msgspec.convert(sent, Message)
    always = {"id": "chatcmpl-1-0", "refusal": None, "content_parts": None}
    assert msgspec.to_builtins(stored_message("chatcmpl-1-0", message)) == always | shown


def test_empty_pages_have_no_ids() -> None:
    empty: dict[str, object] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert msgspec.to_builtins(completion_list([], has_more=False)) == empty
    assert msgspec.to_builtins(message_list([], has_more=False)) == empty
