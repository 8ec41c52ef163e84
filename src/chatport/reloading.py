"""The configuration read again while the server runs: what changes, and what needs a restart.

Models that are somewhere else, and scripted ones, are exchanged as a whole between two requests; those under way end as
they began. What holds a port, a file or a model's weights stays as it is and is named.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, structs

from chatport.config import Config, ModelConfig, RoutedModel, ScriptedModel


class Reloaded(Struct, frozen=True, kw_only=True):
    """What POST /admin/reload replies."""

    models: tuple[str, ...]
    """The ids that are served now."""
    restart_needed: tuple[str, ...] = ()
    """Settings of the file that are not in force: `server.port`, `models.NAME`."""


def is_swappable(entry: ModelConfig) -> bool:
    """Whether a model can come and go while the server runs."""
    return isinstance(entry, RoutedModel | ScriptedModel)


def merged(running: Config, wanted: Config) -> tuple[ModelConfig, ...]:
    """The models to serve: those wanted, the embedded ones as they run. A new name wins over one that runs on."""
    embedded = {entry.id: entry for entry in running.models if not is_swappable(entry)}
    entries: list[ModelConfig] = []
    for entry in wanted.models:
        if is_swappable(entry):
            entries.append(entry)
        elif entry.id in embedded:
            entries.append(priced_as(embedded[entry.id], entry))
    return tuple(entries)


def priced_as(entry: ModelConfig, other: ModelConfig) -> ModelConfig:
    """The model at another's price: that can change while it runs."""
    return structs.replace(entry, price=other.price)


def restart_needed(running: Config, wanted: Config) -> Iterator[str]:
    """What differs and can't be changed while the server runs."""
    for table in ("server", "store", "ledger"):
        before, after = getattr(running, table), getattr(wanted, table)
        for field in structs.fields(before):
            if getattr(before, field.name) != getattr(after, field.name):
                yield f"{table}.{field.name}"
    kept = {entry.id: entry for entry in running.models if not is_swappable(entry)}
    for entry in wanted.models:
        if not is_swappable(entry) and (entry.id not in kept or priced_as(kept[entry.id], entry) != entry):
            yield f"models.{entry.id}"
    for name in kept.keys() - {entry.id for entry in wanted.models}:
        yield f"models.{name}"
