"""Whose request it is: through which proxies, and what anybody could have made up."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.telemetry import Access
from chatport.web.app import WebSettings, create_app
from chatport.web.forwarded import MAX_ELEMENT, MAX_HOPS, UNIX, TrustedProxies, peer_name
from support.memory_port import MemoryPort
from support.raw_http import request
from support.site import FakeServices, chat_body

PEER = "10.0.0.1"
PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8::/64", "192.0.2.1"])

READ = {
    "203.0.113.7": "203.0.113.7",
    "198.51.100.1, 203.0.113.7": "203.0.113.7",
    "198.51.100.1,203.0.113.7 ,10.9.9.9, 192.0.2.1": "203.0.113.7",
    "junk, 203.0.113.7, 10.0.0.2": "203.0.113.7",
    "203.0.113.7:51234": "203.0.113.7",
    "[2a00::7]:443": "2a00::7",
    "[2a00::7]": "2a00::7",
    "2a00:0:0::7": "2a00::7",
    "203.0.113.7, 2001:db8::9": "203.0.113.7",
    "::ffff:203.0.113.7": "203.0.113.7",
    "203.0.113.7, ::ffff:10.0.0.2": "203.0.113.7",
    "10.0.0.3, 10.0.0.2": "10.0.0.3",
    "x" * 60_000 + ", 203.0.113.7": "203.0.113.7",
    "198.51.100.1, " * 4_000 + "203.0.113.7": "203.0.113.7",
    ", ".join(["203.0.113.7", *["10.0.0.2"] * MAX_HOPS]): "203.0.113.7",
}
"""X-Forwarded-For, and the client that it tells."""


@pytest.mark.parametrize(("value", "client"), READ.items(), ids=lambda text: text[:40])
def test_the_client_is_the_rightmost_address_that_is_no_proxy(value: str, client: str) -> None:
    assert PROXIES.client(PEER, value, None) == client


UNREADABLE = [
    "",
    ",",
    "203.0.113.7,",
    "unknown",
    "203.0.113.7, unknown",
    "203.0.113.7, _hidden, 10.0.0.2",
    "localhost",
    "203.0.113",
    "203.0.113.256",
    "203.0.113.7/8",
    "0203.0.113.7",
    "203.0.113.7:",
    "[2a00::7",
    "2a00::7]",
    "[]:1",
    "fe80::1%eth0\n",
    '"203.0.113.7"',
    "２03.0.113.7",
    "\x00\xff",
    "f" * 60_000,
    ", ".join(["203.0.113.7", *["10.0.0.2"] * (MAX_HOPS + 1)]),
]


@pytest.mark.parametrize("value", UNREADABLE, ids=lambda text: ascii(text[:40]))
def test_what_can_not_be_read_leaves_the_peer(value: str) -> None:
    assert PROXIES.client(PEER, value, None) == PEER


@pytest.mark.parametrize("peer", ["203.0.113.9", "127.0.0.1", "2a00::1", UNIX, None])
def test_nobody_else_is_believed(peer: str | None) -> None:
    assert PROXIES.client(peer, "198.51.100.1", "for=198.51.100.1") == peer


def test_the_peer_on_a_unix_socket_may_be_trusted() -> None:
    proxies = TrustedProxies([UNIX])
    assert proxies.client(UNIX, "203.0.113.7", None) == "203.0.113.7"
    assert proxies.client(UNIX, None, None) == UNIX
    assert proxies.client(None, "203.0.113.7", None) is None
    assert proxies.client("10.0.0.1", "203.0.113.7", None) == "10.0.0.1"


FORWARDED = {
    "for=203.0.113.7": "203.0.113.7",
    'For="[2A00::7]:4711"': "2a00::7",
    'proto=https; for="203.0.113.7:80" ;by=_x;host="a.example:80"': "203.0.113.7",
    "for=198.51.100.1, for=203.0.113.7;proto=http, for=10.0.0.2": "203.0.113.7",
    # What a client began does not take in what the proxy appends.
    'for=198.51.100.1;x=", for="[2a00::7]"': "2a00::7",
    'for="198.51.100.1, for=203.0.113.7': "203.0.113.7",
    # A client's Host, quoted by the proxy, is no element of its own.
    'for=203.0.113.7;host="a, for=198.51.100.1"': PEER,
    'for=203.0.113.7;host="a, for=198.51.100.1;x="': PEER,
    r'for=203.0.113.7;host="a, for=198.51.100.1;x=\""': PEER,
    "for=203.0.113.7;for=198.51.100.1": PEER,
    "for=unknown": PEER,
    'for="_hidden"': PEER,
    "for=": PEER,
    "for": PEER,
    "proto=https": PEER,
    "203.0.113.7": PEER,
    f"for=203.0.113.7;x={'y' * MAX_ELEMENT}": PEER,
    "": PEER,
}
"""Forwarded, and the client that it tells."""


@pytest.mark.parametrize(("value", "client"), FORWARDED.items(), ids=lambda text: text[:40])
def test_forwarded_is_read_too(value: str, client: str) -> None:
    assert PROXIES.client(PEER, None, value) == client


def test_x_forwarded_for_wins() -> None:
    assert PROXIES.client(PEER, "203.0.113.7", "for=198.51.100.1") == "203.0.113.7"
    assert PROXIES.client(PEER, "unknown", "for=198.51.100.1") == PEER
    assert PROXIES.client(PEER, None, None) == PEER


@given(st.text(alphabet='for=10.203:[]",;\\_ %\x00é', max_size=60))
def test_nothing_is_an_error(value: str) -> None:
    assert PROXIES.client(PEER, value, None)
    assert PROXIES.client(PEER, None, value)


def test_the_name_of_a_peer() -> None:
    here = ("127.0.0.1", 8000)
    assert peer_name(("192.0.2.1", 5), here) == "192.0.2.1"
    assert peer_name(("::ffff:192.0.2.1", 5), here) == "192.0.2.1"
    assert peer_name(("2a00::7", 5), here) == "2a00::7"
    assert peer_name(None, ("/run/chatport", None)) == UNIX
    assert peer_name(None, here) is None


@pytest.mark.parametrize(
    ("trusted", "client"),
    [((), "127.0.0.1"), (("10.0.0.0/8",), "127.0.0.1"), (("127.0.0.1", "203.0.113.8"), "203.0.113.7")],
)
async def test_the_log_names_the_client(
    trusted: tuple[str, ...], client: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chatport.access")
    port = MemoryPort(create_app(FakeServices(), WebSettings(trusted_proxies=trusted)))
    several = [("X-Forwarded-For", value) for value in ("198.51.100.1", "203.0.113.7, 203.0.113.8", "127.0.0.1")]
    await port.exchange(request(body=chat_body(), headers=several), b"junk\r\n\r\n")
    lines = [record.msg for record in caplog.records if isinstance(record.msg, Access)]
    # What was no request has no headers, so its line names the peer.
    assert {line.status: line.client for line in lines} == {200: client, 400: "127.0.0.1"}
