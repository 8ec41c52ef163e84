"""Pages for operators and their tools; none needs a key, none tells more than how things stand."""

from __future__ import annotations

from chatport import __version__
from chatport.web.exchange import Exchange
from chatport.web.routing import API_BASE
from chatport.web.site import Site


async def welcome(exchange: Exchange, site: Site) -> None:
    """Where the API is, for whoever opens the port's address."""
    await exchange.reply_json(
        {"name": "Chatport", "version": __version__, "base_url": API_BASE, "description": "/openapi.json"}
    )


async def healthz(exchange: Exchange, site: Site) -> None:
    """The process runs."""
    await exchange.reply_json({"status": "ok"})


async def readyz(exchange: Exchange, site: Site) -> None:
    """200 when store and embedded models are ready, else 503; the body says what is not."""
    readiness = await site.services.readiness()
    await exchange.reply_json(readiness, status=200 if readiness.ready else 503)
