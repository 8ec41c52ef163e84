"""What a changed configuration changes while the server runs."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from chatport.config import Config, LlamaModel, PriceConfig, RoutedModel, ScriptedModel, ServerConfig, UpstreamTarget
from chatport.config.schema import StoreConfig
from chatport.reloading import merged, restart_needed
from chatport.runtime import running

EMBEDDED = LlamaModel(id="small", path="small")
FAR = RoutedModel(id="far", targets=(UpstreamTarget(base_url="http://127.0.0.1:1/v1"),))
ECHO = ScriptedModel(id="echo")


def config(*models: LlamaModel | RoutedModel | ScriptedModel, **server: object) -> Config:
    return Config(models=models, home=Path("/h"), server=ServerConfig(**server))  # type: ignore[arg-type]


def test_what_is_elsewhere_comes_and_goes() -> None:
    now, wanted = config(EMBEDDED, ECHO), config(FAR, EMBEDDED)
    assert merged(now, wanted) == (FAR, EMBEDDED)
    assert list(restart_needed(now, wanted)) == []


def test_what_is_embedded_stays_as_it_runs() -> None:
    changed, other = LlamaModel(id="small", path="small", slots=2), LlamaModel(id="other", path="other")
    now = config(EMBEDDED)
    assert merged(now, config(changed, other)) == (EMBEDDED,)
    assert list(restart_needed(now, config(changed, other))) == ["models.small", "models.other"]


def test_what_is_no_longer_wanted_is_no_longer_served() -> None:
    now = config(EMBEDDED, ECHO)
    assert merged(now, config(ECHO)) == (ECHO,)
    assert list(restart_needed(now, config(ECHO))) == ["models.small"]


def test_settings_of_the_server_are_named() -> None:
    now, wanted = config(ECHO), config(ECHO, port=9, strict="report")
    assert list(restart_needed(now, wanted)) == ["server.port", "server.strict"]


def test_a_price_changes_while_the_model_runs() -> None:
    price = PriceConfig(prompt=Decimal(1), completion=Decimal(2))
    dearer = LlamaModel(id="small", path="small", price=price)
    now = config(EMBEDDED)
    assert merged(now, config(dearer)) == (dearer,)
    assert merged(config(dearer), config(EMBEDDED)) == (EMBEDDED,)
    assert list(restart_needed(now, config(dearer))) == []
    other = LlamaModel(id="small", path="small", slots=2, price=price)
    assert merged(now, config(other)) == (dearer,)
    assert list(restart_needed(now, config(other))) == ["models.small"]


async def test_of_two_reloads_the_later_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the store takes for the first."""
    named = [replace(config(ScriptedModel(id=name)), home=tmp_path) for name in ("first", "second")]
    start = replace(config(ECHO), home=tmp_path, store=StoreConfig(url=f"sqlite:///{tmp_path}/t.db"))
    async with running(start) as runtime:
        adopt = runtime.rules.prices.adopt
        waits = [0.1, 0.0]

        async def slowly(*arguments: Any) -> None:
            await asyncio.sleep(waits.pop(0))
            await adopt(*arguments)

        monkeypatch.setattr(runtime.rules.prices, "adopt", slowly)
        wanted = iter(named)
        runtime.reread = lambda: next(wanted)
        await asyncio.gather(runtime.reload(), runtime.reload())
        assert [model.id for model in runtime.models] == ["second"]
