"""The stored completions under /v1/chat/completions (contract.md §14)."""

from __future__ import annotations

from chatport.web.exchange import Exchange
from chatport.web.site import Site
from chatport.wire.decode import decode_metadata
from chatport.wire.stored import decode_completion_query, decode_page


async def list_completions(exchange: Exchange, site: Site) -> None:
    """The caller's stored completions, a page at a time."""
    query = decode_completion_query(exchange.query)
    await exchange.reply_json(await site.services.stored.list(exchange.caller, query))


async def get_completion(exchange: Exchange, site: Site) -> None:
    """One of them."""
    (completion,) = exchange.parameters
    await exchange.reply_json(await site.services.stored.get(exchange.caller, completion))


async def update_completion(exchange: Exchange, site: Site) -> None:
    """Replaces its metadata."""
    (completion,) = exchange.parameters
    metadata = decode_metadata(await exchange.json_body(site.settings.max_body_bytes))
    await exchange.reply_json(await site.services.stored.update_metadata(exchange.caller, completion, metadata))


async def delete_completion(exchange: Exchange, site: Site) -> None:
    """Deletes it; later calls are told that there is none."""
    (completion,) = exchange.parameters
    await exchange.reply_json(await site.services.stored.delete(exchange.caller, completion))


async def list_messages(exchange: Exchange, site: Site) -> None:
    """The messages it answered, a page at a time."""
    (completion,) = exchange.parameters
    page = decode_page(exchange.query)
    await exchange.reply_json(await site.services.stored.messages(exchange.caller, completion, page))
