"""POST /v1/chat/completions."""

from __future__ import annotations

from chatport.pipeline import Call
from chatport.web.exchange import Exchange
from chatport.web.site import Site
from chatport.wire.decode import decode_request


async def create(exchange: Exchange, site: Site) -> None:
    """Creates a completion: one JSON reply, or a stream of frames."""
    body = await exchange.json_body(site.settings.max_body_bytes)
    request = decode_request(body, site.settings.decode_limits, keep_unknown=site.settings.keep_unknown)
    exchange.model = request.model
    call = Call(
        id=exchange.id,
        caller=exchange.caller,
        request=request,
        body=body,
        idempotency_key=exchange.header(b"idempotency-key"),
        received=exchange.received,
        trail=exchange.trail,
        stopped=exchange.cut_short,
    )
    await site.services.pipeline.run(call, exchange)
