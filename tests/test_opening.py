"""What the configuration says of prices, as the policy and the catalog have it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from msgspec import structs

from chatport.backends.http.pool import Pools
from chatport.config import Config, LlamaModel, OnDemandConfig, PriceConfig, RoutedModel, ScriptedModel, UpstreamTarget
from chatport.opening import ON_DEMAND, configured_prices, open_scripted
from chatport.policy.catalog import named
from chatport.policy.prices import Configured, Rates
from chatport.runtime import running
from chatport.store.prices import CONFIGURATION, EMBEDDED
from chatport.upstreams import open_upstreams

PRICE = PriceConfig(prompt=Decimal("0.0375"), completion=Decimal(1), request=Decimal("0.01"))
FREE = Configured(model=ON_DEMAND, source=EMBEDDED, rates=Rates())


def test_what_runs_here_costs_nothing_by_a_price_of_its_own() -> None:
    models = (LlamaModel(id="a", path="a"), ScriptedModel(id="b"), RoutedModel(id="c", targets=()))
    assert list(configured_prices(models)) == [
        Configured(model="a", source=EMBEDDED, rates=Rates()),
        Configured(model="b", source=EMBEDDED, rates=Rates()),
        FREE,
    ]


def test_a_configured_price() -> None:
    models = (ScriptedModel(id="b", price=PRICE), RoutedModel(id="c", targets=(), price=PRICE))
    rates = Rates(prompt=37_500, completion=10**6, request=10**10)
    assert list(configured_prices(models)) == [
        *(Configured(model=name, source=CONFIGURATION, rates=rates) for name in ("b", "c")),
        FREE,
    ]


def test_what_costs_what_a_list_says_has_no_price_of_its_own() -> None:
    model = ScriptedModel(id="b", price_model="openai/gpt-4o")
    assert list(configured_prices([model])) == [FREE]
    assert open_scripted(model)[0].targets[0].listed == "openai/gpt-4o"


def test_a_price_changes_nothing_that_clients_see() -> None:
    plain, priced = ScriptedModel(id="b"), ScriptedModel(id="b", price=PRICE)
    assert open_scripted(plain)[0] == open_scripted(priced)[0]


def test_targets_know_their_entries_in_a_list() -> None:
    targets = (
        UpstreamTarget(provider="xai", base_url="http://h/v1", model="grok-4"),
        UpstreamTarget(provider="openai", base_url="http://h/v1"),
        UpstreamTarget(provider="vllm", base_url="http://h/v1"),
        UpstreamTarget(backend="openai", base_url="http://h/v1"),
    )
    pools = Pools()
    try:
        model, _ = open_upstreams(RoutedModel(id="m", targets=targets), 0, pools, {})
        family, _ = open_upstreams(RoutedModel(id="all/*", targets=targets[1:2]), 0, pools, {})
        one, _ = open_upstreams(RoutedModel(id="m", targets=targets, price_model="a/b"), 0, pools, {})
    finally:
        pools.close()
    assert [target.listed for target in model.targets] == ["x-ai/grok-4", "openai/m", None, None]
    assert [target.listed for target in named(family, "all/gpt-4o", "gpt-4o").targets] == ["openai/gpt-4o"]
    assert {target.listed for target in one.targets} == {"a/b"}


async def test_a_server_has_the_prices_of_its_configuration_and_of_the_changed_one(tmp_path: Path) -> None:
    models = (ScriptedModel(id="a", price=PRICE), ScriptedModel(id="b"))
    config = Config(home=tmp_path, on_demand=OnDemandConfig(enabled=False), models=models)
    async with running(config) as runtime:
        prices = runtime.rules.prices
        first, free = prices.at("a", 1), prices.at("b", 1)
        assert first is not None
        assert free is not None
        assert (first.rates.prompt, free.rates, free.source) == (37_500, Rates(), EMBEDDED)
        dearer = structs.replace(PRICE, prompt=Decimal(1))
        runtime.reread = lambda: structs.replace(config, models=(ScriptedModel(id="a", price=dearer),))
        await runtime.reload()
        second = prices.at("a", 1)
        assert second is not None
        assert (second.rates.prompt, second.id != first.id, prices.at("b", 1)) == (10**6, True, None)
    async with running(runtime.config) as runtime:
        assert runtime.rules.prices.at("a", 1) == second
