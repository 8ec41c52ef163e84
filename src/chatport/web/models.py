"""The models under /v1/models (contract.md §15)."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from chatport.web.exchange import Exchange
from chatport.web.site import Site
from chatport.wire.chat import ModelObject


class ModelList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ModelObject]


async def list_models(exchange: Exchange, site: Site) -> None:
    """Every name the caller may ask for, aliases included."""
    await site.services.catalog.look_for(None)
    await exchange.reply_json(ModelList(data=site.services.catalog.listing(exchange.caller)))


async def get_model(exchange: Exchange, site: Site) -> None:
    """One of them; its name may hold `/` and `:`, percent-encoded or not."""
    (model,) = exchange.parameters
    await site.services.catalog.look_for(model)
    await exchange.reply_json(site.services.catalog.describe(model, exchange.caller))
