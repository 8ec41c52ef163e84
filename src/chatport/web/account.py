"""What was used: a key of itself, and an operator of everybody, with an admin key."""

from __future__ import annotations

import time
from typing import Literal, cast, get_args
from urllib.parse import parse_qs

from msgspec import Struct

from chatport.policy.quantities import since_of
from chatport.policy.usage import UsageEntry
from chatport.store.audit import AuditRow
from chatport.store.usage import By
from chatport.web.admin import require_admin
from chatport.web.exchange import Exchange
from chatport.web.site import Site
from chatport.wire.errors import InvalidRequest, quote

DEFAULT_SINCE = "30d"

DEFAULT_CHANGES = 50
MOST_CHANGES = 1000
"""Changes on one page of the audit log."""


class UsageList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[UsageEntry]


class AuditList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[AuditRow]
    """The newest first; the page after it comes with `before` = the last one's `sequence`."""


async def get_key(exchange: Exchange, site: Site) -> None:
    """The key that asks: its limits, its budgets and what is left of them, what it has used."""
    await exchange.reply_json(await site.services.overview.key(exchange.caller, time.time(), time.monotonic()))


async def get_request(exchange: Exchange, site: Site) -> None:
    """The whole story of one request, by its `x-request-id`."""
    require_admin(exchange)
    await exchange.reply_json(await site.services.overview.request(exchange.parameters[0]))


async def get_usage(exchange: Exchange, site: Site) -> None:
    """What was used, `by` key, owner, user, model or day, `since` a time."""
    require_admin(exchange)
    asked = parse_qs(exchange.query.decode("latin-1"))
    by, since = asked.get("by", ["key"])[-1], asked.get("since", [DEFAULT_SINCE])[-1]
    if by not in get_args(By):
        raise InvalidRequest(
            f"Invalid value for 'by': {quote(by)}. Allowed: {', '.join(get_args(By))}.",
            param="by",
            code="invalid_value",
        )
    try:
        begin = since_of(since, time.time())
    except ValueError as exc:
        raise InvalidRequest(f"Invalid value for 'since': {exc}", param="since", code="invalid_value") from exc
    await exchange.reply_json(UsageList(data=await site.services.overview.usage(cast("By", by), begin)))


async def get_audit(exchange: Exchange, site: Site) -> None:
    """Who changed what, from what to what: `limit` changes, those `before` a sequence number."""
    require_admin(exchange)
    asked = parse_qs(exchange.query.decode("latin-1"))
    limit = _number("limit", asked.get("limit", [str(DEFAULT_CHANGES)])[-1], MOST_CHANGES)
    before = _number("before", asked["before"][-1], 1 << 62) if "before" in asked else None
    await exchange.reply_json(AuditList(data=await site.services.overview.audit(limit, before)))


def _number(name: str, given: str, most: int) -> int:
    """A whole number from 1 on. Raises InvalidRequest."""
    if not (given.isascii() and given.isdigit() and len(given) <= len(str(most)) and 1 <= int(given) <= most):
        raise InvalidRequest(
            f"Invalid value for '{name}': {quote(given)}. Allowed: a whole number from 1 to {most}.",
            param=name,
            code="invalid_value",
        )
    return int(given)
