"""What an operator does over HTTP, with an admin key."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from chatport.policy.limits import Reported
from chatport.policy.strictness import UnknownField
from chatport.web.exchange import Exchange
from chatport.web.site import Site
from chatport.wire.errors import AccessDenied


class UnknownFieldList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[UnknownField]


class ReportedList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Reported]


async def reload(exchange: Exchange, site: Site) -> None:
    """Reads the configuration again and serves by it; says what needs a restart."""
    require_admin(exchange)
    await exchange.reply_json(await site.services.reload())


async def list_unknown_fields(exchange: Exchange, site: Site) -> None:
    """Which key has sent which fields that the API does not have (`[server] strict = "report"`)."""
    require_admin(exchange)
    await exchange.reply_json(UnknownFieldList(data=site.services.unknown_fields.listing()))


async def list_reported_limits(exchange: Exchange, site: Site) -> None:
    """What the limits that only report would have refused since the server started."""
    require_admin(exchange)
    await exchange.reply_json(ReportedList(data=site.services.limits.reported()))


def require_admin(exchange: Exchange) -> None:
    """Raises AccessDenied for a key that is no admin's."""
    if not exchange.caller.admin:
        raise AccessDenied("This needs an admin key.")
