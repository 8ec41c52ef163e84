"""Whose request it is, where it came through proxies: X-Forwarded-For, or Forwarded (RFC 7239).

Anybody can send these headers. Each proxy appends whom it heard from, so they are read from the right, and an entry is
believed only while everything to the right of it is a trusted proxy, the connection's peer first. What can't be read
(`unknown`, `_hidden`, garbage) ends that: then the client is the peer, never what stands further left.

uvicorn's ProxyHeadersMiddleware does less: it takes garbage for a client, does not know Forwarded, and can't trust
peers on a Unix socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

UNIX = "unix"
"""The peer on a Unix socket, which has no address."""

MAX_HOPS = 32
"""Trusted proxies that a request may come through; a longer list is not read to its end."""

MAX_ELEMENT = 512
"""Characters of what one proxy says in Forwarded; `host` may take 253 of them."""

_NODE = re.compile(r"(?:\[([0-9a-fA-F:.]{2,45})\]|([0-9.]{7,15}))(?::[\w.-]+)?|([0-9a-fA-F:.]{2,45})", re.ASCII)
"""An address, perhaps with a port; IPv6 with one is in brackets."""

_PAIR = re.compile(r'([\w-]+)=(?:"([^"\\]*)"|([^"\\\s]*))', re.ASCII)
"""`for="[2001:db8::1]:80"`; where a comma or a semicolon stood inside the quotes, neither half is one."""


def peer_name(client: tuple[str, int] | None, server: tuple[str, int | None] | None) -> str | None:
    """The address of a connection's peer, `unix` on a Unix socket, None where it had left before it was asked for.

    Who comes over IPv4 to a port for both kinds (`host = "::"`) is named so: the kernel says `::ffff:192.0.2.1`.
    """
    if client is not None:
        return client[0].removeprefix("::ffff:")
    return UNIX if server is not None and server[1] is None else None


class TrustedProxies:
    """The proxies that are believed. `entries`: addresses, networks, `unix`."""

    def __init__(self, entries: Iterable[str]) -> None:
        named = set(entries)
        self._unix = UNIX in named
        self._networks = [ip_network(entry) for entry in named - {UNIX}]

    def client(self, peer: str | None, x_forwarded_for: str | None, forwarded: str | None) -> str | None:
        """The address of the client: the rightmost one that is no trusted proxy's, the leftmost where all are.

        Each header is None where it is missing, its lines joined by commas. With X-Forwarded-For there, Forwarded does
        not count: most proxies write the former and pass a client's own Forwarded on.
        """
        if not self._trusts_peer(peer):
            return peer
        client = peer
        for address in _hops(x_forwarded_for, forwarded):
            if address is None:
                return peer
            client = str(address)
            if not self._trusts(address):
                break
        return client

    def _trusts_peer(self, peer: str | None) -> bool:
        if peer == UNIX:
            return self._unix
        return peer is not None and self._trusts(ip_address(peer))

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


def _hops(x_forwarded_for: str | None, forwarded: str | None) -> Iterator[IPv4Address | IPv6Address | None]:
    """Who was heard from, the last one first; None where that can't be read."""
    if x_forwarded_for is not None:
        for node in reversed(x_forwarded_for.rsplit(",", MAX_HOPS)):
            yield _address(node.strip())
    elif forwarded is not None:
        for element in reversed(forwarded.rsplit(",", MAX_HOPS)):
            yield _address(_for(element))


def _for(element: str) -> str:
    """The `for` of one proxy's element; empty where it has none, or two, or can't be read."""
    if len(element) > MAX_ELEMENT:
        return ""
    nodes = []
    for pair in element.split(";"):
        found = _PAIR.fullmatch(pair.strip())
        if found is None:
            return ""
        if found[1].lower() == "for":
            nodes.append(found[2] or found[3] or "")
    return nodes[0] if len(nodes) == 1 else ""


def _address(node: str) -> IPv4Address | IPv6Address | None:
    found = _NODE.fullmatch(node)
    if found is None:
        return None
    try:
        address = ip_address(found[1] or found[2] or found[3])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
