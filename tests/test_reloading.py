"""What a changed configuration changes while the server runs."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from chatport.config import Config, LlamaModel, PriceConfig, RoutedModel, ScriptedModel, ServerConfig, UpstreamTarget
from chatport.reloading import merged, restart_needed

EMBEDDED = LlamaModel(id="small", path="small")
FAR = RoutedModel(id="far", targets=(UpstreamTarget(base_url="http://127.0.0.1:1/v1"),))
ECHO = ScriptedModel(id="echo")


def config(*models: LlamaModel | RoutedModel | ScriptedModel, **server: object) -> Config:
    return Config(models=models, home=Path("/h"), server=ServerConfig(**server))  # type: ignore[arg-type]


def test_what_is_elsewhere_comes_and_goes() -> None:
    running, wanted = config(EMBEDDED, ECHO), config(FAR, EMBEDDED)
    assert merged(running, wanted) == (FAR, EMBEDDED)
    assert list(restart_needed(running, wanted)) == []


def test_what_is_embedded_stays_as_it_runs() -> None:
    changed, other = LlamaModel(id="small", path="small", slots=2), LlamaModel(id="other", path="other")
    running = config(EMBEDDED)
    assert merged(running, config(changed, other)) == (EMBEDDED,)
    assert list(restart_needed(running, config(changed, other))) == ["models.small", "models.other"]


def test_what_is_no_longer_wanted_is_no_longer_served() -> None:
    running = config(EMBEDDED, ECHO)
    assert merged(running, config(ECHO)) == (ECHO,)
    assert list(restart_needed(running, config(ECHO))) == ["models.small"]


def test_settings_of_the_server_are_named() -> None:
    running, wanted = config(ECHO), config(ECHO, port=9, strict="report")
    assert list(restart_needed(running, wanted)) == ["server.port", "server.strict"]


def test_a_price_changes_while_the_model_runs() -> None:
    price = PriceConfig(prompt=Decimal(1), completion=Decimal(2))
    dearer = LlamaModel(id="small", path="small", price=price)
    running = config(EMBEDDED)
    assert merged(running, config(dearer)) == (dearer,)
    assert merged(config(dearer), config(EMBEDDED)) == (EMBEDDED,)
    assert list(restart_needed(running, config(dearer))) == []
    other = LlamaModel(id="small", path="small", slots=2, price=price)
    assert merged(running, config(other)) == (dearer,)
    assert list(restart_needed(running, config(other))) == ["models.small"]
