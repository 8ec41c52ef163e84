"""What one connection may take of the server."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from uvicorn import Config

from chatport.web.turn import Application


class HTTPLimits(Struct, frozen=True, kw_only=True):
    """What one connection may take of us: sizes in bytes, times in seconds."""

    max_header_bytes: int = 64 * 1024
    """A request's first line and headers together, trailers included."""
    header_seconds: float = 10.0
    """From a head's first byte to its last."""
    max_body_bytes: int = 32 * 1024 * 1024
    """Of a body that nobody has taken yet. A whole one fits: one turn of uvloop can bring 8 MiB."""
    body_seconds: float = 60.0
    """From a head's last byte to the body's."""
    idle_seconds: float = 75.0
    """Without a request. Longer than the idle time of proxies and client pools (60 s is common), so that it is they
    who close, and no request crosses with our closing."""
    max_connections: int = 1000
    read_ahead_bytes: int = 1024 * 1024
    """Of a body that arrives before its request's turn has come."""
    drain_bytes: int = 256 * 1024
    """Of a refused request that is still arriving: read and thrown away, so that the connection stays usable."""
    linger_seconds: float = 30.0
    """Reading on after the last reply, for a client that is still sending. Precedent: nginx's lingering_time."""
    stall_seconds: float = 60.0
    """A client that takes none of a reply that waits for it."""


class HTTPConfig(Config):
    """uvicorn's configuration, which it hands to each connection, with ours beside it. To uvicorn, the application is
    nothing that it may call."""

    def __init__(self, application: Application, limits: HTTPLimits, **settings: Any) -> None:
        super().__init__(application, interface="asgi3", lifespan="off", ws="none", log_config=None, **settings)
        self.application = application
        self.limits = limits
