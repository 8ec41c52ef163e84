"""Which web pages may call this server from a browser (the Fetch standard's CORS protocol).

Nothing is allowed unless the operator names origins. Keys travel in a header that pages set themselves, never in
cookies, so credentials are not allowed.
"""

from __future__ import annotations

from chatport.web.exchange import Exchange
from chatport.web.turn import Headers

ANY = "*"

ASKED = [b"access-control-request-method", b"access-control-request-headers"]
"""What else the reply to OPTIONS depends on: whether it is a preflight, and which headers it wants to send."""

PREFLIGHT_SECONDS = 7200
"""A browser may remember a preflight's answer. Chromium's own upper limit."""

EXPOSED = b", ".join(
    [
        b"x-request-id",
        b"openai-processing-ms",
        b"openai-version",
        b"openai-organization",
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
        b"x-chatport-clamped",
        b"x-chatport-replayed",
        *(
            b"x-ratelimit-%b-%b" % (what, of)
            for what in (b"limit", b"remaining", b"reset")
            for of in (b"requests", b"tokens")
        ),
    ]
)
"""Reply headers that a page may read."""


def cors_headers(exchange: Exchange, origins: tuple[str, ...]) -> Headers:
    """What a reply to this request must say to a browser, where there are origins that may ask."""
    depends = ([] if ANY in origins else [b"origin"]) + (ASKED if exchange.method == "OPTIONS" else [])
    vary = [(b"vary", b", ".join(depends))] if depends else []
    origin = ANY if ANY in origins else exchange.header(b"origin")
    if origin is None or origin not in origins:
        return vary
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", EXPOSED),
        *vary,
    ]


def is_preflight(exchange: Exchange) -> bool:
    """Whether a browser asks before it sends the request itself. Only asked where the origin is allowed."""
    return (
        exchange.method == "OPTIONS"
        and exchange.header(b"access-control-request-method") is not None
        and any(name == b"access-control-allow-origin" for name, _ in exchange.extra)
    )


async def answer_preflight(exchange: Exchange, methods: str) -> None:
    """Yes, to these methods and to the headers asked for: SDKs send a dozen of their own, `x-stainless-…`."""
    headers = [
        (b"access-control-allow-methods", methods.encode()),
        (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
    ]
    wanted = exchange.header(b"access-control-request-headers")
    if wanted:
        headers.append((b"access-control-allow-headers", wanted.encode("latin-1")))
    await exchange.reply(204, b"", headers)
