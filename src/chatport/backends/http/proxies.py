"""Which upstreams are asked through a proxy, as the environment says it (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`)."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from msgspec import Struct


class Proxy(Struct, frozen=True):
    """An HTTP proxy. Its password is in no representation."""

    host: str
    port: int
    authorization: bytes | None = None
    """Value of `Proxy-Authorization`."""

    def __repr__(self) -> str:
        return f"Proxy({self.host!r}, {self.port})"


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
    """`http://user:password@host:port`; the scheme may be left out. Raises ValueError, without the value: it may hold a
    password."""
    try:
        url = urlsplit(value if "://" in value else f"http://{value}")
        port = url.port or 80
    except ValueError as exc:
        raise ValueError(f"{variable} is not the address of a proxy, http://HOST:PORT.") from exc
    if url.scheme != "http" or not url.hostname:
        raise ValueError(f"{variable} is not the address of a proxy that can be used here: only http://HOST:PORT.")
    authorization = None
    if url.username is not None:
        credentials = f"{unquote(url.username)}:{unquote(url.password or '')}"
        authorization = b"Basic " + base64.b64encode(credentials.encode())
    return Proxy(url.hostname, port, authorization)


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
