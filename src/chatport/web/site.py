"""What the handlers work with: the services behind them, plain settings, and the shape of a route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeAlias

from msgspec import Struct

from chatport.pipeline import Pipeline
from chatport.policy.catalog import Catalog
from chatport.policy.keys import Keys
from chatport.policy.limits import Limits
from chatport.policy.overview import Overview
from chatport.policy.stored import StoredCompletions
from chatport.policy.strictness import UnknownFields
from chatport.web.exchange import Exchange
from chatport.wire.decode import DEFAULT_LIMITS, DecodeLimits


class Readiness(Protocol):
    """A struct that says how things stand; /readyz shows it as JSON."""

    @property
    def ready(self) -> bool:
        """Whether requests can be answered."""
        ...


class Services(Protocol):
    """What stands behind the port. The runtime is one."""

    @property
    def keys(self) -> Keys: ...
    @property
    def catalog(self) -> Catalog: ...
    @property
    def pipeline(self) -> Pipeline: ...
    @property
    def stored(self) -> StoredCompletions: ...
    @property
    def unknown_fields(self) -> UnknownFields: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def overview(self) -> Overview: ...
    async def readiness(self) -> Readiness: ...
    async def reload(self) -> Struct: ...


class WebSettings(Struct, frozen=True, kw_only=True):
    """What the application needs to know of the configuration."""

    max_body_bytes: int = 32 * 1024 * 1024
    decode_limits: DecodeLimits = DEFAULT_LIMITS
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    """Addresses, networks, `unix`: who is believed whom a request comes from."""
    keep_unknown: bool = False
    """Whether some target takes fields that the contract does not know."""


class Site(Struct, frozen=True):
    """What every handler is given beside its exchange."""

    services: Services
    settings: WebSettings


Handler: TypeAlias = Callable[[Exchange, Site], Awaitable[None]]


class Route(Struct, frozen=True, kw_only=True):
    """A path and what may be done there.

    `path`: `{name}` is one segment, `{name...}` at the end all the rest, slashes too. `keyed`: needs an API key; pages
    without one also answer HEAD.
    """

    path: str
    methods: Mapping[str, Handler]
    keyed: bool = True

    @property
    def allowed(self) -> str:
        """The value of `Allow`."""
        return ", ".join(self.methods if self.keyed else [*self.methods, "HEAD"])

    def handler(self, method: str) -> Handler | None:
        return self.methods.get("GET" if method == "HEAD" and not self.keyed else method)
