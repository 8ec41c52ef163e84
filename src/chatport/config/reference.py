"""The settings as Markdown tables, for `docs/configuration.md`: a test holds the page to what `schema.py` says.

After a change in `schema.py`: `python -m chatport.config.reference docs/configuration.md`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

import msgspec
from msgspec import inspect

from chatport.config.allowed import allowed
from chatport.config.limits import LimitConfig
from chatport.config.pricing import PriceConfig
from chatport.config.schema import LedgerConfig, LlamaModel, OnDemandConfig, ScriptedModel, ServerConfig, StoreConfig
from chatport.config.terms import Settings
from chatport.config.upstreams import RoutedModel, UpstreamTarget

BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
"""The lines of the page between which the tables stand."""

TABLES: tuple[tuple[str, type[Settings]], ...] = (
    ("[server]", ServerConfig),
    ("[store]", StoreConfig),
    ("[ledger]", LedgerConfig),
    ("[on_demand]", OnDemandConfig),
    ('[[models]] with backend = "llama"', LlamaModel),
    ('[[models]] with backend = "scripted"', ScriptedModel),
    ("[[models]] with targets", RoutedModel),
    ("[[models.targets]]", UpstreamTarget),
    ("[[limits]]", LimitConfig),
    ("[models.price]", PriceConfig),
)


def markdown() -> str:
    """One table for each table of the file."""
    return "\n".join(_table(title, kind) for title, kind in TABLES)


def renewed(page: str) -> str:
    """The page with its tables as they are to be now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{markdown()}\n{END}{after}"


def _table(title: str, kind: type[Settings]) -> str:
    described = cast("inspect.StructType", inspect.type_info(kind))
    rows = [
        f"| `{field.name}` | {_default(field)} | {_meaning(field)} | {allowed(field.type)} |"
        for field in described.fields
    ]
    head = ["| key | default | meaning | allowed |", "|---|---|---|---|"]
    return "\n".join([f"### `{title}`", "", str(kind.__doc__), "", *head, *rows, ""])


def _meaning(field: inspect.Field) -> str:
    schema = cast("inspect.Metadata", field.type).extra_json_schema or {}
    return str(schema["description"])


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    return "not set" if field.default is None else f"`{json.dumps(msgspec.to_builtins(field.default))}`"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(renewed(target.read_text("utf-8")), "utf-8")
