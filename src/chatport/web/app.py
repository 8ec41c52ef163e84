"""The application: a table of paths and methods, and the order of the checks (contract.md §3).

    path 404 → method 405 → key 401 → (in the handlers) content type 400 → size 413 → JSON and fields 400 → the rest

No framework: the whole of what happens to a request before its handler is `App._answer`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from chatport.delivery import as_api_error
from chatport.telemetry import REQUEST_ID
from chatport.web import account, admin, chat, health, models, openapi, stored
from chatport.web.cors import answer_preflight, cors_headers, is_preflight
from chatport.web.exchange import CLIENT_LEFT, Exchange
from chatport.web.forwarded import TrustedProxies
from chatport.web.routing import Routes
from chatport.web.site import Route, Services, Site, WebSettings
from chatport.web.turn import Turn, stopping
from chatport.wire.errors import MethodNotAllowed, Unavailable

__all__ = ["ROUTES", "Services", "WebSettings", "create_app"]

ROUTES = (
    Route(path="/v1/chat/completions", methods={"POST": chat.create, "GET": stored.list_completions}),
    Route(
        path="/v1/chat/completions/{id}",
        methods={"GET": stored.get_completion, "POST": stored.update_completion, "DELETE": stored.delete_completion},
    ),
    Route(path="/v1/chat/completions/{id}/messages", methods={"GET": stored.list_messages}),
    Route(path="/v1/models", methods={"GET": models.list_models}),
    Route(path="/v1/models/{model...}", methods={"GET": models.get_model}),
    Route(path="/v1/key", methods={"GET": account.get_key}),
    Route(path="/admin/requests/{id}", methods={"GET": account.get_request}),
    Route(path="/admin/usage", methods={"GET": account.get_usage}),
    Route(path="/admin/audit", methods={"GET": account.get_audit}),
    Route(path="/admin/reload", methods={"POST": admin.reload}),
    Route(path="/admin/unknown-fields", methods={"GET": admin.list_unknown_fields}),
    Route(path="/admin/limits", methods={"GET": admin.list_reported_limits}),
    Route(path="/", methods={"GET": health.welcome}, keyed=False),
    Route(path="/healthz", methods={"GET": health.healthz}, keyed=False),
    Route(path="/readyz", methods={"GET": health.readyz}, keyed=False),
    Route(path="/openapi.json", methods={"GET": openapi.describe}, keyed=False),
)
"""Everything that is served; any other path is a 404."""


def create_app(services: Services, settings: WebSettings) -> App:
    """The application that `web.server` runs."""
    return App(Site(services, settings))


class App:
    """Answers requests, whatever happens: every exception becomes the error object or a cut reply, and a log line."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._routes = Routes(ROUTES)
        trusted = site.settings.trusted_proxies
        self._proxies = TrustedProxies(trusted) if trusted else None
        self._origins = site.settings.cors_origins

    async def __call__(self, turn: Turn) -> None:
        exchange = Exchange(turn)
        REQUEST_ID.set(exchange.id)  # no need to reset: the task is this request's own
        if self._proxies is not None:
            exchange.client = self._proxies.client(
                exchange.client, exchange.header(b"x-forwarded-for"), exchange.header(b"forwarded")
            )
        if self._origins:
            exchange.extra = cors_headers(exchange, self._origins)
        cancelled: int | None = None
        try:
            await self._answer(exchange)
        except asyncio.CancelledError:
            cancelled = CLIENT_LEFT
            if exchange.cut_short():
                cancelled = Unavailable.status
                await exchange.fail(stopping())
            raise
        except Exception as exc:  # noqa: BLE001  the last chance to answer at all
            await exchange.fail(as_api_error(exc))
        finally:
            exchange.log(cancelled=cancelled)

    def _answer(self, exchange: Exchange) -> Awaitable[None]:
        """Who answers, found by the checks before; not a coroutine itself, which each resume would walk through."""
        found = self._routes.find(exchange.raw_path)
        if found is None:
            raise self._routes.missing(exchange.method, exchange.raw_path)
        route, exchange.parameters = found
        if self._origins and is_preflight(exchange):
            return answer_preflight(exchange, route.allowed)
        handler = route.handler(exchange.method)
        if handler is None:
            raise MethodNotAllowed(exchange.method, route.allowed)
        exchange.creates = handler is chat.create
        if route.keyed:
            exchange.caller = self._site.services.keys.authenticate(exchange.header(b"authorization"), time.time())
            exchange.key_id = exchange.caller.key_id
        return handler(exchange, self._site)
