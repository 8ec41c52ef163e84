"""Which upstreams are asked through a proxy, as the environment says it (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`)."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Struct

FORMS = "http://, https://, socks5:// or socks5h://, then HOST:PORT"
"""What a variable may hold."""

MAX_SOCKS_CREDENTIAL = 255
"""Bytes of a user name, and of a password: their length is one byte (RFC 1929 §2)."""


class Kind(StrEnum):
    """How a proxy is spoken to: the scheme of its address."""

    HTTP = "http"
    HTTPS = "https"
    """HTTP inside TLS."""
    SOCKS5 = "socks5"
    """Names are resolved here; the proxy gets addresses."""
    SOCKS5H = "socks5h"
    """Names are resolved by the proxy."""

    @property
    def port(self) -> int:
        """Where an address names none."""
        return {Kind.HTTP: 80, Kind.HTTPS: 443}.get(self, 1080)


class Proxy(Struct, frozen=True):
    """A proxy. Its credentials are in no representation."""

    host: str
    port: int
    credentials: tuple[bytes, bytes] | None = None
    """User name and password."""
    kind: Kind = Kind.HTTP

    @property
    def secure(self) -> bool:
        """Whether the way to the proxy itself is TLS."""
        return self.kind is Kind.HTTPS

    @property
    def speaks_http(self) -> bool:
        return self.kind in {Kind.HTTP, Kind.HTTPS}

    @property
    def authorization(self) -> bytes | None:
        """Value of `Proxy-Authorization`."""
        return None if self.credentials is None else b"Basic " + base64.b64encode(b":".join(self.credentials))

    def __repr__(self) -> str:
        return f"Proxy({self.host!r}, {self.port}, {self.kind.value!r})"

    def __rich_repr__(self) -> Any:
        yield repr(self)


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for one origin, None where it is asked directly. Loopback never goes through a proxy.

    Raises ValueError for a variable that names none we can use.
    """
    if is_loopback(host) or is_exempt(host, port, environ):
        return None
    for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"):
        if value := environ.get(name):
            return parse_proxy(name, value)
    return None


def parse_proxy(variable: str, value: str) -> Proxy:
    """`http://user:password@host:port`; the scheme may be left out. Raises ValueError, without the value and without
    the faults that quote from it: it may hold a password."""
    try:
        url = urlsplit(value if "://" in value else f"http://{value}")
        kind = Kind(url.scheme)
        port = url.port or kind.port
    except ValueError:
        raise ValueError(f"{variable} is not the address of a proxy that can be used here: {FORMS}.") from None
    if not url.hostname or "@" in f"{url.path}{url.query}{url.fragment}":
        raise ValueError(
            f"{variable} is not the address of a proxy that can be used here: {FORMS}. "
            "In a user name or password, characters such as / ? # @ are percent-encoded."
        )
    proxy = Proxy(url.hostname, port, _credentials(url), kind)
    if not proxy.speaks_http and any(len(part) > MAX_SOCKS_CREDENTIAL for part in proxy.credentials or ()):
        raise ValueError(f"{variable} has a user name or password of more than {MAX_SOCKS_CREDENTIAL} bytes.")
    return proxy


def _credentials(url: SplitResult) -> tuple[bytes, bytes] | None:
    """Byte for byte what the variable holds, which need not be UTF-8."""
    if url.username is None:
        return None
    user, password = (
        unquote(part, errors="surrogateescape").encode(errors="surrogateescape")
        for part in (url.username, url.password or "")
    )
    return user, password


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by name or address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_exempt(host: str, port: int, environ: Mapping[str, str]) -> bool:
    """Whether NO_PROXY names the host: `*`, a domain and all below it, an address or a network; each with or without
    a port."""
    listed = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return any(covers(entry.strip().removesuffix(f":{port}"), host) for entry in listed.split(","))


def covers(entry: str, host: str) -> bool:
    """Whether one entry of NO_PROXY means the host."""
    name = entry.lstrip(".").lower()
    if entry == "*" or (name and (name == host or host.endswith(f".{name}"))):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
