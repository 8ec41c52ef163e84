"""A proxy in the environment that would catch requests to our own port.

The SDKs obey it, and what they then say points anywhere but here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

NAMES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
LOCAL = "127.0.0.1,localhost"


def catching(environ: Mapping[str, str], host: str) -> str | None:
    """The variable of a proxy that requests to `host` would go through, None where they go straight."""
    exempt = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if any(_covers(entry.strip(), host) for entry in exempt.split(",")):
        return None
    return next((name for name in NAMES if environ.get(name)), None)


def exemption(environ: Mapping[str, str]) -> str:
    """The line that lets loopback requests go straight, what was exempt before included."""
    before = environ.get("no_proxy") or environ.get("NO_PROXY")
    return f'export NO_PROXY="{before},{LOCAL}"' if before else f'export NO_PROXY="{LOCAL}"'


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, as seen from itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _covers(entry: str, host: str) -> bool:
    if entry == "*" or entry.lstrip(".") == host or host.endswith(f".{entry.lstrip('.')}"):
        return bool(entry)
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
