"""What tokens cost: exact, never more than was held for, and never twice."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from math import ceil

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.policy.prices import (
    Configured,
    Hours,
    Price,
    Prices,
    Rates,
    Tier,
    Tokens,
    charge_nano,
    cost_pico,
    most,
    nano,
    new_row,
    rates_of_day,
)
from chatport.store import Store
from chatport.store.prices import COMMAND, CONFIGURATION, EMBEDDED, LISTED, PriceRow
from chatport.wire.chat import CompletionTokensDetails, PromptTokensDetails, Usage

PROMPT_KINDS = ("cached", "cache_write", "audio_prompt", "image")
OUTPUT_KINDS = ("reasoning", "audio_completion")

rate = st.integers(0, 10**12)
kinds = {
    "prompt": rate,
    "completion": rate,
    **{kind: st.none() | rate for kind in (*PROMPT_KINDS, *OUTPUT_KINDS)},
}
tiers = st.builds(Tier, above=st.integers(0, 10**6), **kinds)
flat_rates = st.builds(Rates, request=rate, **kinds)
any_rates = st.builds(Rates, request=rate, tiers=st.lists(tiers, max_size=3).map(tuple), **kinds)
said = st.builds(Tokens, **dict.fromkeys(Tokens.__struct_fields__, st.integers(-(10**3), 10**7)))
"""Anything that an upstream might say."""


@st.composite
def sound(draw: st.DrawFn) -> Tokens:
    """Kinds that there is room for."""
    count = st.integers(0, 10**6)
    parts = {kind: draw(count) for kind in (*PROMPT_KINDS, *OUTPUT_KINDS)}
    prompt = draw(count) + sum(parts[kind] for kind in PROMPT_KINDS)
    completion = draw(count) + sum(parts[kind] for kind in OUTPUT_KINDS)
    return Tokens(prompt=prompt, completion=completion, **parts)


@given(any_rates, said)
def test_no_usage_costs_more_than_is_held_for_it(rates: Rates, tokens: Tokens) -> None:
    each_prompt, each_output, request = most(rates)
    bound = max(0, tokens.prompt) * each_prompt + max(0, tokens.completion) * each_output + request
    assert rates.request <= cost_pico(rates, tokens) <= bound


@given(any_rates)
def test_what_is_held_is_what_some_request_costs(rates: Rates) -> None:
    each_prompt, each_output, _ = most(rates)
    above = max([tier.above for tier in rates.tiers], default=0) + 1
    sizes = {1, *(tier.above + 1 for tier in rates.tiers), above}
    prompts = {
        Fraction(cost_pico(rates, Tokens(**({"prompt": size} | ({kind: size} if kind else {})))) - rates.request, size)
        for size in sizes
        for kind in ("", *PROMPT_KINDS)
    }
    assert max(prompts) <= each_prompt
    if not rates.tiers:
        assert max(prompts) == each_prompt
        outputs = {
            cost_pico(rates, Tokens(**({"completion": 1} | ({kind: 1} if kind else {})))) - rates.request
            for kind in ("", *OUTPUT_KINDS)
        }
        assert max(outputs) == each_output


@given(flat_rates, sound(), sound())
def test_twice_as_much_costs_twice_as_much(rates: Rates, one: Tokens, other: Tokens) -> None:
    both = Tokens(**{name: getattr(one, name) + getattr(other, name) for name in Tokens.__struct_fields__})
    apart = cost_pico(rates, one) + cost_pico(rates, other)
    assert cost_pico(rates, both) == apart - rates.request


@given(said)
def test_free_is_free(tokens: Tokens) -> None:
    assert cost_pico(Rates(), tokens) == 0
    assert nano(0) == charge_nano(0, 2_000_000) == 0
    assert most(Rates()) == (0, 0, 0)


@given(said)
def test_nothing_is_counted_twice_or_below_zero(tokens: Tokens) -> None:
    used = tokens.clamped()
    assert min(getattr(used, name) for name in Tokens.__struct_fields__) >= 0
    assert sum(getattr(used, kind) for kind in PROMPT_KINDS) <= used.prompt == max(0, tokens.prompt)
    assert sum(getattr(used, kind) for kind in OUTPUT_KINDS) <= used.completion == max(0, tokens.completion)
    assert used.clamped() == used


@given(sound())
def test_what_makes_sense_is_left_alone(tokens: Tokens) -> None:
    assert tokens.clamped() == tokens


@given(st.integers(0, 10**20), st.integers(0, 10**9))
def test_rounding_is_up_and_once(cost: int, factor: int) -> None:
    assert nano(cost) == ceil(Fraction(cost, 1000))
    assert charge_nano(cost, factor) == ceil(Fraction(cost * factor, 10**9))
    assert charge_nano(cost, 1_000_000) == nano(cost)


@given(any_rates)
def test_rates_outlive_their_json(rates: Rates) -> None:
    assert msgspec.json.decode(msgspec.json.encode(rates), type=Rates) == rates
    assert msgspec.convert(msgspec.to_builtins(rates), Rates) == rates


def test_every_kind_at_its_rate() -> None:
    rates = Rates(
        prompt=1,
        cached=10,
        cache_write=100,
        audio_prompt=1_000,
        image=10_000,
        completion=100_000,
        reasoning=1_000_000,
        audio_completion=10_000_000,
        request=100_000_000,
    )
    tokens = Tokens(
        prompt=15, cached=2, cache_write=3, audio_prompt=4, image=5, completion=9, reasoning=6, audio_completion=2
    )
    assert cost_pico(rates, tokens) == 126_154_321
    assert most(rates) == (10_000, 10_000_000, 100_000_000)


def test_a_kind_without_a_rate_costs_what_its_side_costs() -> None:
    rates = Rates(prompt=7, completion=11)
    tokens = Tokens(prompt=10, cached=4, audio_prompt=2, completion=10, reasoning=9)
    assert cost_pico(rates, tokens) == 180
    assert cost_pico(Rates(prompt=7, cached=0, completion=11), tokens) == 152


@pytest.mark.parametrize(
    ("prompt", "cost"), [(0, 3), (1000, 1003), (1001, 2002 + 30), (2000, 4030), (2001, 10_005 + 50)]
)
def test_a_long_prompt_makes_the_whole_request_dearer(prompt: int, cost: int) -> None:
    rates = Rates(
        prompt=1,
        completion=3,
        tiers=(Tier(above=2000, prompt=5, completion=50), Tier(above=1000, prompt=2, completion=30)),
    )
    assert cost_pico(rates, Tokens(prompt=prompt, completion=1)) == cost
    assert most(rates) == (5, 50, 0)


def test_a_thousandth_of_a_cent() -> None:
    """0.0375 USD per million tokens is 37,500 pico-dollars a token."""
    rates = Rates(prompt=37_500)
    assert cost_pico(rates, Tokens(prompt=1)) == 37_500
    assert nano(cost_pico(rates, Tokens(prompt=1))) == 38
    assert nano(cost_pico(rates, Tokens(prompt=1_000_000))) == 37_500_000


def test_tokens_of_a_reply() -> None:
    usage = Usage(
        prompt_tokens=100,
        completion_tokens=50,
        total_tokens=150,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=20, cache_write_tokens=30, audio_tokens=10, image_tokens=50
        ),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=20, audio_tokens=5),
    )
    assert Tokens.of(usage) == Tokens(
        prompt=100,
        cached=20,
        cache_write=30,
        audio_prompt=10,
        image=40,
        completion=50,
        reasoning=20,
        audio_completion=5,
    )


# --- Which price holds ------------------------------------------------------------------------------------------------

NIGHT = Hours(prompt=1, completion=2, begins=16 * 3600, ends=1800)
NOON = Hours(prompt=9, completion=9, begins=8 * 3600, ends=9 * 3600)


@pytest.mark.parametrize(
    ("second", "prompt"), [(0, 1), (1799, 1), (1800, 5), (8 * 3600, 9), (9 * 3600, 5), (16 * 3600, 1), (86_399, 1)]
)
def test_hours_of_the_day(second: int, prompt: int) -> None:
    rates = Rates(prompt=5, completion=6, request=7, hours=(NIGHT, NOON), tiers=(Tier(above=10, prompt=50),))
    held = rates_of_day(rates, 86_400 * 1000 + second)
    assert (held.prompt, held.request, held.hours) == (prompt, 7, ())
    assert bool(held.tiers) is (prompt == 5)
    assert most(rates)[0] == 50


def prompt_rate(price: Price | None) -> int | None:
    return None if price is None else price.rates.prompt


def is_of(winner: tuple[str, str], row: PriceRow) -> bool:
    return (row.model, row.source) == winner


async def loaded(store: Store, *rows: tuple[str, str, int, int]) -> Prices:
    """Prices as they come out of the store, whatever the order in which they came in."""
    for at, (model, source, begins, prompt) in enumerate(rows):
        await store.prices.set(new_row(model, source, Rates(prompt=prompt), at, begins), "test")
    prices = Prices(store.prices)
    await prices.load()
    return prices


async def test_the_configuration_wins_over_the_command_over_embedded_over_a_list(store: Store) -> None:
    listed = f"{LISTED} 1"
    rows = [("m", CONFIGURATION, 0, 1), ("m", COMMAND, 0, 2), ("m", EMBEDDED, 0, 3), ("openai/m", listed, 0, 4)]
    while rows:
        prices = await loaded(store, *reversed(rows))
        assert prompt_rate(prices.at("m", 100, "openai/m")) == rows[0][3]
        winner = rows.pop(0)[:2]
        await store.prices.replace((), partial(is_of, winner), 1, "test")
    prices = await loaded(store)
    assert prices.at("m", 100, "openai/m") is None


async def test_of_one_source_the_newest_that_has_begun_holds(store: Store) -> None:
    prices = await loaded(store, ("m", COMMAND, 100, 1), ("m", COMMAND, 200, 2), ("m", COMMAND, 300, 3))
    found = [prompt_rate(prices.at("m", now)) for now in (99.9, 100, 199.9, 200, 10**9)]
    assert found == [None, 1, 1, 2, 3]


async def test_what_a_list_calls_a_model_is_not_what_we_call_one(store: Store) -> None:
    prices = await loaded(store, ("openai/m", f"{LISTED} 1", 0, 4), ("x/m", COMMAND, 0, 5))
    assert prices.at("openai/m", 1) is None
    assert prompt_rate(prices.at("other", 1, "openai/m")) == 4
    assert prices.at("other", 1, "x/m") is None


async def test_a_family_s_price_is_its_models_unless_they_have_their_own(store: Store) -> None:
    prices = await loaded(store, ("a/*", COMMAND, 0, 1), ("a/b/*", COMMAND, 0, 2), ("a/c", COMMAND, 0, 3))
    names = ("a/x", "a/b/x", "a/c", "a", "b/x")
    assert [prompt_rate(prices.at(name, 1)) for name in names] == [1, 2, 3, None, None]


async def test_models_of_our_own_may_share_a_price(store: Store) -> None:
    prices = await loaded(store, ("on demand", EMBEDDED, 0, 0))
    assert prompt_rate(prices.at("anything", 1, "on demand")) == 0
    assert prices.at("anything", 1) is None


async def test_the_price_of_the_hour_keeps_its_id(store: Store) -> None:
    row = new_row("m", COMMAND, Rates(prompt=5, hours=(NOON,)), 0)
    await store.prices.set(row, "test")
    prices = Prices(store.prices)
    await prices.load()
    at_noon, later = prices.at("m", 8 * 3600), prices.at("m", 10 * 3600)
    assert (prompt_rate(at_noon), prompt_rate(later)) == (9, 5)
    assert at_noon is not None
    assert later is not None
    assert at_noon.id == later.id == row.id
    assert at_noon.rates.hours == ()


async def test_adopting_twice_changes_nothing_and_what_is_gone_has_ended(store: Store) -> None:
    first = [
        Configured(model="a", source=CONFIGURATION, rates=Rates(prompt=1)),
        Configured(model="b", source=EMBEDDED, rates=Rates()),
    ]
    prices = Prices(store.prices)
    await prices.adopt(first, 10)
    before = await store.revisions.current()
    a, b = prices.at("a", 10), prices.at("b", 10)
    await prices.adopt(first, 20)
    assert (prices.at("a", 20), prices.at("b", 20)) == (a, b)
    assert await store.revisions.current() == before
    await prices.adopt([Configured(model="a", source=CONFIGURATION, rates=Rates(prompt=2))], 30)
    changed = prices.at("a", 30)
    assert changed is not None
    assert a is not None
    assert (changed.rates.prompt, changed.id != a.id, prices.at("b", 30)) == (2, True, None)
    assert {row.id: row.ended_at for row in await store.prices.all()} == {
        a.id: 30,
        b.id if b else "": 30,
        changed.id: None,
    }


async def test_another_server_s_configuration_does_not_change_this_one_s(store: Store) -> None:
    one, other = Prices(store.prices), Prices(store.prices)
    await one.adopt([Configured(model="m", source=CONFIGURATION, rates=Rates(prompt=1))], 10)
    await other.adopt([Configured(model="m", source=CONFIGURATION, rates=Rates(prompt=2))], 20)
    await one.load()
    await other.load()
    assert (prompt_rate(one.at("m", 30)), prompt_rate(other.at("m", 30))) == (1, 2)
