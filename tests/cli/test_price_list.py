"""genai-prices as rows of ours: what a request costs by them is what genai-prices itself says."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    StartDateConstraint,
    Tier,
    TieredPrices,
    Usage,
)

from chatport.cli import price_list
from chatport.cli.price_list import LIST, entries_of, everything, rows_of, source
from chatport.policy.prices import Rates, Tokens, cost_pico, rates_of_day
from chatport.providers import PRICED_AS, PROVIDERS

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
NAMES = {
    "prompt": "input_tokens",
    "cached": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "completion": "output_tokens",
    "reasoning": "output_reasoning_tokens",
}
"""Ours, and what genai-prices calls them."""


def rates_in(row: Any) -> Rates:
    return msgspec.json.decode(row.rates, type=Rates)


def theirs(entry: str, tokens: Tokens, at: datetime) -> Decimal:
    provider_id, _, name = entry.partition("/")
    _, model = LIST.find_provider_model(name, None, provider_id, None)
    usage = Usage(**{theirs: getattr(tokens, ours) for ours, theirs in NAMES.items()})
    [provider] = [each for each in LIST.providers if each.id == provider_id]
    return model.calc_price(usage, provider, genai_request_timestamp=at).total_price


def cost_at(entry: str, tokens: Tokens, at: datetime) -> int:
    now = at.timestamp()
    row = [row for row in rows_of(entry, NOW.timestamp()) if row.effective_at <= now][-1]
    return cost_pico(rates_of_day(rates_in(row), now), tokens)


@pytest.mark.parametrize("provider", sorted(set(PRICED_AS.values()) | {"anthropic", "google", "perplexity"}))
def test_every_price_of_the_list_comes_to_what_the_list_says(provider: str) -> None:
    """Short and long prompts, at night and at noon, now and after every price that is announced."""
    usages = [
        Tokens(prompt=prompt, cached=prompt // 3, cache_write=prompt // 7, completion=777, reasoning=111)
        for prompt in (1000, 200_000, 200_001, 999_999)
    ]
    times = [NOW, NOW.replace(hour=2), NOW.replace(hour=7, minute=30), NOW.replace(year=2029)]
    entries = list(entries_of(provider))
    assert entries
    for entry in entries:
        for tokens in usages:
            for at in times:
                exact = theirs(entry, tokens, at) * 10**12
                assert exact <= cost_at(entry, tokens, at) < exact + tokens.prompt + tokens.completion, (entry, at)


def test_prices_that_are_as_fine_as_ours_are_exact() -> None:
    tokens = Tokens(prompt=300_001, cached=1000, completion=77)
    for entry in ("openai/gpt-4o-mini", "deepseek/deepseek-chat", "anthropic/claude-opus-4-6", "x-ai/grok-4"):
        assert cost_at(entry, tokens, NOW) == theirs(entry, tokens, NOW) * 10**12


def test_a_name_with_a_date_is_the_same_model() -> None:
    [dated], [plain] = rows_of("openai/gpt-4o-mini-2024-07-18", 0), rows_of("openai/gpt-4o-mini", 0)
    assert (dated.model, plain.model) == ("openai/gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini")
    assert rates_in(dated) == rates_in(plain) == Rates(prompt=150_000, cached=75_000, completion=600_000)
    assert dated.source == source()
    assert source().startswith("genai-prices ")


def test_who_offers_others_models_has_their_prices() -> None:
    assert rows_of("azure/claude-opus-4-6", NOW.timestamp())
    assert "azure/gpt-4o-mini" in entries_of("azure")


@pytest.mark.parametrize("entry", ["openai/no-such-model", "nobody/gpt-4o-mini", "openai/text-embedding-3-small"])
def test_what_has_no_price_by_the_token_has_no_row(entry: str) -> None:
    assert rows_of(entry, 0) == []


def test_the_whole_list_is_read() -> None:
    entries = list(everything())
    assert len(entries) == len(set(entries)) > 2000
    assert all(rows_of(entry, NOW.timestamp()) for entry in entries)
    assert {"openai/gpt-4o-mini", "openrouter/deepseek/deepseek-chat"} <= set(entries)


def test_every_provider_that_the_list_has_is_mapped() -> None:
    known = {provider.id for provider in LIST.providers}
    assert set(PRICED_AS.values()) <= known
    assert PRICED_AS.keys() <= PROVIDERS.keys()
    unmapped = PROVIDERS.keys() - PRICED_AS.keys()
    assert unmapped == {
        "dashscope",
        "volcengine",
        "siliconflow",
        "vllm",
        "sglang",
        "llama-server",
        "ollama",
        "lmstudio",
    }
    assert not unmapped & known


def test_tiers_dates_and_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    tiered = TieredPrices(base=Decimal(1), tiers=[Tier(start=200_000, price=Decimal(2))])
    early = ModelPrice(input_mtok=tiered, output_mtok=Decimal("0.0000001"), requests_kcount=Decimal(5))
    late = ModelPrice(input_mtok=Decimal(3), output_mtok=Decimal(4))
    day = datetime(2027, 1, 1, tzinfo=UTC)
    prices = [
        ConditionalPrice(prices=early),
        ConditionalPrice(StartDateConstraint(start_date=day.date()), prices=late),
    ]
    model = ModelInfo(id="m", match=ClauseEquals("m"), prices=prices)
    monkeypatch.setattr(price_list, "_found", lambda entry: model)
    now, then = rows_of("a/m", NOW.timestamp())
    assert (now.effective_at, then.effective_at) == (0, int(day.timestamp()))
    # A tier of one kind is a tier of all; what is finer than a pico-dollar is rounded up.
    long = Rates(prompt=2_000_000, completion=1)
    assert rates_in(now).tiers[0].above == 200_000
    assert rates_in(now).tiers[0].prompt == long.prompt
    assert rates_in(now).tiers[0].completion == 1
    assert (rates_in(now).prompt, rates_in(now).completion, rates_in(now).request) == (1_000_000, 1, 5 * 10**9)
    assert [row.effective_at for row in rows_of("a/m", day.timestamp())] == [then.effective_at]
