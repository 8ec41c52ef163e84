"""The story of one request: every number in it follows from its record."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, json, structs

from chatport.policy.prices import Hours, Rates, Tier, Tokens, cost_pico, rates_of_day
from chatport.policy.story import Story, cost_lines, told
from chatport.store.account import HoldAccount, HoldRow, PostingRow
from chatport.store.contents import ContentRow
from chatport.store.records import PriceOf, Record
from chatport.wire.errors import NotFound
from support.postings import posting_row

NOON = 12 * 3600.0

amounts = st.integers(0, 10**7)
kinds = st.none() | amounts
sides: dict[str, Any] = {
    "prompt": amounts,
    "cached": kinds,
    "cache_write": kinds,
    "audio_prompt": kinds,
    "image": kinds,
    "completion": amounts,
    "reasoning": kinds,
    "audio_completion": kinds,
}
tiers = st.builds(Tier, above=st.integers(0, 3000), **sides)
hours = st.builds(Hours, begins=st.integers(0, 86_399), ends=st.integers(0, 86_399), **sides)
every_rates = st.builds(
    Rates,
    request=amounts,
    tiers=st.lists(tiers, max_size=2).map(tuple),
    hours=st.lists(hours, max_size=2).map(tuple),
    **sides,
)
every_tokens = st.builds(Tokens, **{name: st.integers(0, 5000) for name in Tokens.__struct_fields__})


@given(every_rates, every_tokens, st.integers(0, 200_000))
def test_the_lines_are_the_cost(rates: Rates, tokens: Tokens, began: int) -> None:
    lines = cost_lines(rates, tokens, began)
    assert sum(line.pico for line in lines) == cost_pico(rates_of_day(rates, began), tokens)
    assert all(line.pico == line.tokens * line.pico_each for line in lines)
    used = sum(line.tokens for line in lines if line.kind != "request")
    assert used == tokens.prompt + tokens.completion


def test_each_kind_has_its_own_line() -> None:
    rates = Rates(prompt=10, cached=1, completion=20, request=7)
    lines = cost_lines(rates, Tokens(prompt=100, cached=40, completion=5, reasoning=2), NOON)
    assert [(line.kind, line.tokens, line.pico_each, line.pico) for line in lines] == [
        ("request", 1, 7, 7),
        ("prompt", 60, 10, 600),
        ("cached", 40, 1, 40),
        ("completion", 3, 20, 60),
        ("reasoning", 2, 20, 40),
    ]


def test_a_long_prompt_s_lines_are_at_its_tier() -> None:
    rates = Rates(prompt=10, completion=20, tiers=(Tier(above=99, prompt=15, completion=30),))
    assert [line.pico_each for line in cost_lines(rates, Tokens(prompt=100, completion=1), NOON)] == [15, 30]


def test_the_time_of_the_day_that_it_began_decides() -> None:
    rates = Rates(prompt=10, hours=(Hours(begins=0, ends=3600, prompt=5),))
    assert [cost_lines(rates, Tokens(prompt=1), began)[0].pico_each for began in (60.0, NOON)] == [5, 10]


def record(posting: PostingRow | None = None, hold: HoldRow | None = None, **more: Any) -> Record:
    nothing: dict[str, Any] = {"attempts": [], "taken": [], "price": None, "key_name": "laptop", "content": None}
    return Record(posting=posting, hold=hold, **(nothing | more))


def as_json(story: Story) -> Any:
    return json.decode(json.encode(story))


def test_a_posted_request() -> None:
    price = PriceOf(id="price_1", source="configuration", rates=b'{"prompt":4000,"completion":6000}', effective_at=1)
    posting = posting_row("req_1", price_id="price_1", ending="cut", queue_ms=3, first_ms=40, total_ms=90)
    story = told(record(posting, price=price), "req_1")
    assert (story.state, story.ending, story.key_name) == ("posted", "cut", "laptop")
    assert (story.queue_ms, story.first_ms, story.total_ms) == (3, 40, 90)
    assert sum(line.pico for line in story.lines) == 70 * 1000
    assert as_json(story)["price"]["rates"] == {"prompt": 4000, "completion": 6000}


def test_a_price_that_is_not_in_the_database_any_more_is_named() -> None:
    story = told(record(posting_row("req_1", price_id="price_gone")), "req_1")
    assert story.price is not None
    assert (story.price.id, story.price.rates, story.lines) == ("price_gone", None, [])


def test_what_cost_nothing_has_no_lines() -> None:
    price = PriceOf(id="price_1", source="embedded", rates=b"{}", effective_at=0)
    posting = structs.replace(posting_row("req_1", price_id="price_1"), cost_nano=0, charge_nano=0)
    assert told(record(posting, price=price), "req_1").lines == []


def test_a_request_that_runs_is_told_as_far_as_it_is_known() -> None:
    hold = HoldRow(
        request_id="req_1",
        worker_id="w",
        created_ms=1500,
        account=HoldAccount(key_id="key_1", model="m", target="t", held_nano=9),
        prompt_tokens=4,
        completion_tokens=2,
    )
    story = told(record(hold=hold), "req_1")
    assert (story.state, story.created_at, story.settled_at, story.ending) == ("held", 1.5, None, None)
    assert (story.held_nano, story.tokens) == (9, Tokens(prompt=4, completion=2))


@pytest.mark.parametrize(("body", "shown"), [(b'{"a": 1}', {"a": 1}), (b"\xff{", "\ufffd{")])
def test_what_was_said_is_json_whatever_it_was(body: bytes, shown: Any) -> None:
    content = ContentRow(request_id="req_1", request=body, reply=b'{"b":2}', expires_at=9)
    said = as_json(told(record(posting_row("req_1"), content=content), "req_1"))["content"]
    assert said == {"request": shown, "reply": {"b": 2}, "expires_at": 9}


def test_a_stranger_is_not_found() -> None:
    with pytest.raises(NotFound, match="req_0"):
        told(None, "req_0")


def test_rates_are_shown_as_they_are_kept() -> None:
    price = PriceOf(id="price_1", source="x", rates=b'{"future":1}', effective_at=0)
    story = told(record(posting_row("req_1", price_id="price_1"), price=price), "req_1")
    assert story.price is not None
    assert story.price.rates == Raw(b'{"future":1}')
