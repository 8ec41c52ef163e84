"""From the configuration of a model to the model that the catalog has, and the backends that answer for it.

Each way a model can run is a `case` of `open_model`. Those that are somewhere else are `upstreams.py`; model files that
nobody configured share one backend, `open_on_demand`.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs

from chatport import __version__
from chatport.backends.base import Backend
from chatport.backends.http.pool import Pools
from chatport.config import Config, LlamaModel, ModelConfig, OnDemandConfig, RoutedModel, ScriptedModel
from chatport.policy.catalog import Model
from chatport.policy.prices import Configured, Rates
from chatport.store.prices import CONFIGURATION, EMBEDDED
from chatport.targets import Target

if TYPE_CHECKING:
    from chatport.backends.llama.installed import Installed
    from chatport.backends.on_demand.backend import OnDemandBackend, OnDemandSettings
    from chatport.backends.on_demand.shelf import ShelvedModel

RELEASED = 1_795_392_000
"""Unix seconds of this program's first release: `created` of a model that is no file."""

ON_DEMAND = "on demand"
"""The key, among the backends, of the one for models that nobody configured, and what their price is kept under; no
model's id holds a space."""


async def open_model(entry: ModelConfig, config: Config, pools: Pools) -> tuple[Model, dict[str, Backend]]:
    """A model as the configuration describes it, and the backends that answer for it, by their targets' name."""
    match entry:
        case ScriptedModel():
            model, backend = open_scripted(entry)
        case LlamaModel():
            model, backend = await open_llama(entry, config.home)
        case RoutedModel():
            from chatport.upstreams import open_upstreams  # noqa: PLC0415  only where models are elsewhere

            model, backends = open_upstreams(entry, RELEASED, pools, os.environ)
            return relaxed(model, config), backends
    return relaxed(model, config), {entry.id: backend}


def relaxed(model: Model, config: Config) -> Model:
    """With `strict = "report"`, targets take unknown fields: upstreams see them, what is inside ignores them."""
    if config.server.strict == "enforce":
        return model
    taking = tuple(
        structs.replace(target, extra_params="forward" if target.remote else "drop")
        if target.extra_params == "reject"
        else target
        for target in model.targets
    )
    return structs.replace(model, targets=taking)


# --- Inside the process ----------------------------------------------------------------------------------------------


def open_scripted(entry: ScriptedModel) -> tuple[Model, Backend]:
    from chatport.backends.scripted import FEATURES, ScriptedBackend  # noqa: PLC0415  only where a model is scripted

    backend = ScriptedBackend(entry.reply, delay_ms=entry.delay_ms, fail_status=entry.fail_status)
    target = Target(
        id=entry.id,
        backend=entry.id,
        model=entry.id,
        features=FEATURES,
        fingerprint=fingerprint(msgspec.json.encode(structs.replace(entry, price=None, price_model=None))),
        price_model=entry.price_model,
    )
    return described(entry, target, RELEASED), backend


async def open_llama(entry: LlamaModel, home: Path) -> tuple[Model, Backend]:
    """Loads the model: seconds, during which nothing else runs in this process (engine.md, pitfall 2)."""
    from chatport.backends.llama import FEATURES, LlamaBackend, LlamaSettings  # noqa: PLC0415  loads the engine
    from chatport.backends.llama.installed import resolve  # noqa: PLC0415  only where a model file is wanted

    path = resolve(entry.path, home)
    backend = await LlamaBackend.open(
        LlamaSettings(
            path=path,
            slots=entry.slots,
            context=entry.context,
            threads=entry.threads,
            queue=entry.queue,
            system_prompt=entry.system_prompt,
            gpu_layers=entry.gpu_layers,
            chat_template=None if entry.chat_template is None else Path(entry.chat_template),
            tool_format=None if entry.tool_format == "auto" else entry.tool_format,
            default_max_tokens=entry.default_max_tokens,
        )
    )
    target = Target(
        id=entry.id,
        backend=entry.id,
        model=entry.id,
        features=FEATURES,
        fingerprint=backend.fingerprint,
        context=backend.context_length,
        price_model=entry.price_model,
    )
    return described(entry, target, int(path.stat().st_mtime)), backend


# --- In processes that come and go -----------------------------------------------------------------------------------


def open_on_demand(config: Config, on_change: Callable[[Iterable[Model]], None]) -> OnDemandBackend | None:
    """What is in the folder of models beside those that are configured. `on_change` hears of all of them, whenever some
    came or went. None where they are not served."""
    if not serves_on_demand(config):
        return None
    from chatport.backends.llama.installed import resolve  # noqa: PLC0415  as above
    from chatport.backends.on_demand.backend import OnDemandBackend  # noqa: PLC0415

    names = {name for entry in config.models for name in (entry.id, *entry.aliases)}
    files = {resolve(entry.path, config.home).absolute() for entry in config.models if isinstance(entry, LlamaModel)}
    settings = on_demand_settings(config.on_demand)

    def wanted(model: Installed) -> bool:
        return model.name not in names and model.path.absolute() not in files

    def changed(found: Collection[ShelvedModel]) -> None:
        on_change(on_demand_model(model, settings) for model in found)

    return OnDemandBackend(config.home, settings, wanted, changed)


def serves_on_demand(config: Config) -> bool:
    """Whether model files that nobody configured are served: their processes need pipes that Windows does not have."""
    return config.on_demand.enabled and sys.platform != "win32"


def on_demand_settings(entry: OnDemandConfig) -> OnDemandSettings:
    from chatport.backends.on_demand.backend import OnDemandSettings  # noqa: PLC0415  only where they are served

    return OnDemandSettings(
        idle_seconds=entry.idle_seconds,
        load_seconds=entry.load_seconds,
        wait_seconds=entry.wait_seconds,
        max_loaded=entry.max_loaded,
        max_memory=entry.max_memory_bytes,
        context=entry.context,
        slots=entry.slots,
        threads=entry.threads,
        gpu_layers=entry.gpu_layers,
    )


def on_demand_model(model: ShelvedModel, settings: OnDemandSettings) -> Model:
    """A model file as the catalog has it; loaded or not makes no difference there."""
    run = structs.replace(settings.for_model(model), path=Path(model.digest))
    target = Target(
        id=model.name,
        backend=ON_DEMAND,
        model=model.name,
        features=model.features,
        fingerprint=fingerprint(msgspec.json.encode(run, enc_hook=str)),
        context=None if model.fault else settings.window(model),
        price_model=ON_DEMAND,
    )
    return described(LlamaModel(id=model.name, path=str(model.path)), target, model.changed_ns // 1_000_000_000)


# --- What they cost ---------------------------------------------------------------------------------------------------


def configured_prices(models: Iterable[ModelConfig]) -> Iterator[Configured]:
    """What the file says, and that what runs here costs nothing, unless it is said otherwise."""
    for entry in models:
        if entry.price is not None:
            yield Configured(model=entry.id, source=CONFIGURATION, rates=msgspec.convert(entry.price.pico, Rates))
        elif entry.price_model is None and not isinstance(entry, RoutedModel):
            yield Configured(model=entry.id, source=EMBEDDED, rates=Rates())
    yield Configured(model=ON_DEMAND, source=EMBEDDED, rates=Rates())


# --- What the catalog has of them ------------------------------------------------------------------------------------


def described(entry: LlamaModel | ScriptedModel, target: Target, created: int) -> Model:
    """A model that runs on this machine, and so has one target. `created`: Unix seconds."""
    return Model(
        id=entry.id,
        aliases=entry.aliases,
        targets=(target,),
        created=created,
        owned_by=entry.owned_by,
        context_length=target.context,
        capabilities=tuple(sorted(target.features)),
    )


def fingerprint(description: bytes) -> str:
    """`fp_…`: the same as long as the description and the program are."""
    return "fp_" + hashlib.sha256(description + __version__.encode()).hexdigest()[:10]
