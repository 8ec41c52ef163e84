"""Upstreams behind real proxies on loopback: HTTP, HTTP inside TLS, and SOCKS5, each with its faults."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chatport.backends.http import dial
from chatport.backends.http.connection import Timeouts
from chatport.backends.http.dial import Origin
from chatport.backends.http.faults import Broken, Fault, TimedOut, Unreachable
from chatport.backends.http.pool import PoolLimits, Pools
from chatport.backends.http.proxies import Kind, Proxy
from chatport.backends.openai import OpenAISettings
from chatport.backends.openai.backend import request_lines
from support.proxies import ESTABLISHED, Login, Socks, Step, forwarding, serving
from support.upstreams import (
    Behaviour,
    Upstream,
    answering,
    asking,
    then_closing,
    then_hanging,
    then_resetting,
    upstream,
    whole,
)

GOOD = whole(b'{"a": 1}')
SOON = Timeouts(connect=1, send=1, first_byte=1, between=1, total=5)
LOGIN: Login = (b"me", b"p@ss\xff")
WRONG: Login = (b"me", b"hunter2")
GREETING = b"\x05\x00"


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    """With nothing left of them afterwards."""
    pools = Pools(PoolLimits(sweep_seconds=0.02))
    yield pools
    pools.close()
    await asyncio.sleep(0)


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    assert not {task for task in asyncio.all_tasks() - before if not task.done()} - {asyncio.current_task()}


@pytest.fixture
async def plain() -> AsyncIterator[Upstream]:
    async with upstream(answering(GOOD)) as server:
        yield server


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
async def secure(tls: ssl.SSLContext) -> AsyncIterator[Upstream]:
    async with upstream(answering(GOOD), tls=tls) as server:
        yield server


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system trusts the certificate of our proxies."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


def to(server: Upstream, proxy: Proxy, ca_file: Path | None = None, host: str = "127.0.0.1") -> Origin:
    return Origin(scheme=server.scheme, host=host, port=server.port, proxy=proxy, ca_file=ca_file)


async def fetch(pools: Pools, origin: Origin, timeouts: Timeouts = SOON, body: bytes = b"{}") -> tuple[int, bytes]:
    lines = request_lines("POST", "/v1", OpenAISettings(base_url="http://x"), origin)
    head = lines + b"content-length: %d\r\n\r\n" % len(body)
    async with asking(pools.to(origin), head + body, timeouts) as answer:
        return answer.status, await answer.body(10_000_000)


async def refused(pools: Pools, origin: Origin, fault: type[Fault] = Unreachable, match: str | None = None) -> Fault:
    """The fault of an origin that can't be reached: in time, and with none of the credentials."""
    started = time.perf_counter()
    with pytest.raises(fault, match=match) as caught:
        await fetch(pools, origin)
    assert time.perf_counter() - started < 3
    assert pools.to(origin).in_use == pools.to(origin).kept == 0
    told = f"{caught.value}{caught.value.__cause__}{origin!r}"
    assert all(secret not in told for secret in ("hunter2", "p@ss", "bWU6"))
    return caught.value


# --- HTTP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.HTTP, Kind.HTTPS])
@pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "login"])
@pytest.mark.usefixtures("trusted")
async def test_https_through_an_http_proxy(
    pools: Pools, secure: Upstream, certificate: Path, tls: ssl.SSLContext, kind: Kind, login: Login | None
) -> None:
    async with upstream(forwarding(login), tls=tls if kind is Kind.HTTPS else None) as proxy:
        origin = to(secure, Proxy("127.0.0.1", proxy.port, login, kind), certificate)
        assert [await fetch(pools, origin) for _ in range(2)] == [(200, b'{"a": 1}')] * 2
        pools.close()
        (asked,) = proxy.asked
        assert asked.line == f"CONNECT 127.0.0.1:{secure.port} HTTP/1.1"
        assert (secure.connections, [request.line for request in secure.asked]) == (1, ["POST /v1 HTTP/1.1"] * 2)
        assert all("proxy-authorization" not in request.headers for request in secure.asked)
        await proxy.all_gone()


@pytest.mark.parametrize("kind", [Kind.HTTP, Kind.HTTPS])
@pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "login"])
@pytest.mark.usefixtures("trusted")
async def test_http_through_an_http_proxy(
    pools: Pools, plain: Upstream, tls: ssl.SSLContext, kind: Kind, login: Login | None
) -> None:
    async with upstream(forwarding(login), tls=tls if kind is Kind.HTTPS else None) as proxy:
        origin = to(plain, Proxy("127.0.0.1", proxy.port, login, kind), host="upstream.test")
        assert await fetch(pools, origin) == (200, b'{"a": 1}')
        pools.close()
        assert proxy.asked[0].line == f"POST http://upstream.test:{plain.port}/v1 HTTP/1.1"
        assert (plain.asked[0].line, plain.asked[0].body) == ("POST /v1 HTTP/1.1", b"{}")
        await proxy.all_gone()


@pytest.mark.parametrize("kind", [Kind.HTTP, Kind.HTTPS])
@pytest.mark.parametrize("login", [None, WRONG], ids=["none", "wrong"])
@pytest.mark.usefixtures("trusted")
async def test_an_http_proxy_that_wants_other_credentials(
    pools: Pools, secure: Upstream, plain: Upstream, tls: ssl.SSLContext, kind: Kind, login: Login | None
) -> None:
    async with upstream(forwarding(LOGIN), tls=tls if kind is Kind.HTTPS else None) as proxy:
        through = Proxy("127.0.0.1", proxy.port, login, kind)
        await refused(pools, to(secure, through), match="refused CONNECT: 407")
        assert await fetch(pools, to(plain, through)) == (407, b"")
        assert not secure.asked + plain.asked


@pytest.mark.parametrize("kind", [Kind.HTTP, Kind.HTTPS])
@pytest.mark.parametrize(
    ("behaviour", "fault", "match"),
    [
        (then_closing(whole(b"", "403 Forbidden")), Unreachable, "refused CONNECT: 403"),
        (then_closing(b"SSH-2.0\r\n\r\n"), Unreachable, "does not speak HTTP"),
        (then_closing(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000), Unreachable, "does not speak HTTP"),
        (then_closing(), Unreachable, "closed"),
        (then_closing(ESTABLISHED[:-1]), Unreachable, "closed"),
        (then_resetting(), Unreachable, None),
        (then_hanging(), TimedOut, "connect"),
        (then_hanging(ESTABLISHED[:-1]), TimedOut, "connect"),
        (then_hanging(ESTABLISHED), TimedOut, "connect"),
        (then_closing(ESTABLISHED), Unreachable, None),
        (then_resetting(ESTABLISHED), Unreachable, None),
        (then_hanging(ESTABLISHED + b"more"), Unreachable, "nobody asked for"),
        (answering(ESTABLISHED, b"220 mail.test\r\n", pause=0.05), Unreachable, None),
    ],
    ids=[
        "refuses",
        "ssh",
        "endless",
        "closes",
        "closes in the head",
        "resets",
        "hangs",
        "hangs in the head",
        "hangs in the handshake",
        "closes in the handshake",
        "resets in the handshake",
        "says more",
        "is no TLS behind it",
    ],
)
@pytest.mark.usefixtures("trusted")
async def test_a_tunnel_that_fails(
    pools: Pools,
    tls: ssl.SSLContext,
    kind: Kind,
    behaviour: Behaviour,
    fault: type[Fault],
    match: str | None,
) -> None:
    async with upstream(behaviour, tls=tls if kind is Kind.HTTPS else None) as proxy:
        through = Proxy("127.0.0.1", proxy.port, WRONG, kind)
        await refused(pools, Origin(scheme="https", host="upstream.test", port=443, proxy=through), fault, match)
        await proxy.all_gone(within=1)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("first", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None], ids=["plain", "closes", "hangs"])
@pytest.mark.usefixtures("trusted")
async def test_an_https_proxy_that_speaks_no_tls(pools: Pools, scheme: str, first: bytes | None) -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if first is None:
            while await reader.read(1000):
                pass
        elif first:
            await reader.read(1000)
            writer.write(first)
        writer.close()
        gone.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    through = Proxy("127.0.0.1", server.sockets[0].getsockname()[1], WRONG, Kind.HTTPS)
    origin = Origin(scheme=scheme, host="upstream.test", port=443, proxy=through)
    await refused(pools, origin, TimedOut if first is None else Unreachable)
    async with asyncio.timeout(1):
        await gone.wait()
    server.close()


@pytest.mark.filterwarnings("ignore")  # the test's own server complains about the handshake
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_https_proxy_is_vouched_for_by_the_system_alone(
    pools: Pools, tls: ssl.SSLContext, certificate: Path, scheme: str
) -> None:
    """An upstream's `ca_file` says nothing of proxies."""
    async with upstream(forwarding(), tls=tls) as proxy:
        through = Proxy("127.0.0.1", proxy.port, WRONG, Kind.HTTPS)
        origin = Origin(scheme=scheme, host="127.0.0.1", port=443, proxy=through, ca_file=certificate)
        await refused(pools, origin, match="through the proxy 127.0.0.1: .*certificate")
        assert not proxy.asked


@pytest.mark.filterwarnings("ignore")  # the test's own server complains about the handshake
@pytest.mark.usefixtures("trusted")
async def test_an_https_proxy_by_another_name(pools: Pools, tls: ssl.SSLContext) -> None:
    async with upstream(forwarding(), tls=tls) as proxy:
        through = Proxy("localhost", proxy.port, WRONG, Kind.HTTPS)
        await refused(pools, Origin(scheme="https", host="127.0.0.1", port=443, proxy=through), match="certificate")
        assert not proxy.asked


@pytest.mark.filterwarnings("ignore")  # the test's own server complains about the handshake
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.usefixtures("trusted")
async def test_a_certificate_in_the_tunnel_is_the_upstreams(
    pools: Pools, secure: Upstream, certificate: Path, tls: ssl.SSLContext, kind: Kind
) -> None:
    """By the upstream's own name, whatever address the proxy is told."""
    context = tls if kind is Kind.HTTPS else None
    async with upstream(forwarding(), tls=context) as http, serving(Socks()) as socks:
        through = Proxy("127.0.0.1", http.port if "http" in kind else socks.port, None, kind)
        await refused(pools, to(secure, through, certificate, host="localhost"), match="certificate")
        assert not secure.asked


# --- SOCKS5 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "login"])
@pytest.mark.parametrize("kind", [Kind.SOCKS5, Kind.SOCKS5H])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_through_a_socks_proxy(
    pools: Pools, plain: Upstream, secure: Upstream, certificate: Path, scheme: str, kind: Kind, login: Login | None
) -> None:
    server = plain if scheme == "http" else secure
    async with serving(Socks(login=login)) as proxy:
        origin = to(server, Proxy("127.0.0.1", proxy.port, login, kind), certificate)
        assert [await fetch(pools, origin) for _ in range(2)] == [(200, b'{"a": 1}')] * 2
        pools.close()
        assert (server.connections, [request.line for request in server.asked]) == (1, ["POST /v1 HTTP/1.1"] * 2)
        assert all("proxy-authorization" not in request.headers for request in server.asked)
        assert (proxy.asked, proxy.logins) == ([("127.0.0.1", server.port)], [login] if login else [])
        await proxy.all_gone()


@pytest.mark.parametrize("bound", [b"\x04" + bytes(16), b"\x03\x05p.org", b"\x01" + bytes(4)], ids=["v6", "name", "v4"])
async def test_whatever_address_a_socks_proxy_has(pools: Pools, plain: Upstream, bound: bytes) -> None:
    async with serving(Socks(bound=bound)) as proxy:
        origin = to(plain, Proxy("127.0.0.1", proxy.port, None, Kind.SOCKS5))
        assert await fetch(pools, origin) == (200, b'{"a": 1}')


async def test_credentials_that_a_socks_proxy_does_not_want_stay_here(pools: Pools, plain: Upstream) -> None:
    async with serving(Socks()) as proxy:
        assert await fetch(pools, to(plain, Proxy("127.0.0.1", proxy.port, LOGIN, Kind.SOCKS5)))
        assert proxy.logins == []


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("upstream.test", "upstream.test"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
async def test_socks5h_leaves_names_to_the_proxy(pools: Pools, plain: Upstream, host: str, told: str) -> None:
    async with serving(Socks()) as proxy:
        origin = to(plain, Proxy("127.0.0.1", proxy.port, None, Kind.SOCKS5H), host=host)
        assert await fetch(pools, origin) == (200, b'{"a": 1}')
        assert proxy.asked == [(told, plain.port)]


@pytest.mark.parametrize("host", ["x" * 64 + ".test", ".".join(["y" * 50] * 6)], ids=["label", "name"])
async def test_a_name_that_is_too_long_for_socks(pools: Pools, plain: Upstream, host: str) -> None:
    async with serving(Socks()) as proxy:
        await refused(pools, to(plain, Proxy("127.0.0.1", proxy.port, None, Kind.SOCKS5H), host=host), match="too long")
        await proxy.all_gone(within=1)


@pytest.mark.parametrize("reached", ["2001:db8::2", None], ids=["the second", "none"])
async def test_socks5_tries_each_address_of_a_name(
    pools: Pools, plain: Upstream, monkeypatch: pytest.MonkeyPatch, reached: str | None
) -> None:
    async def several(host: str, port: int) -> list[tuple[object, ...]]:
        if host != "upstream.test":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        v6 = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (f"2001:db8::{n}", port, 0, 0)) for n in (1, 2, 2)]
        return [*v6, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr(dial, "addresses", several)
    every = ["2001:db8::1", "2001:db8::2", "10.0.0.1"]
    async with serving(Socks(refused={host: 3 for host in every if host != reached})) as proxy:
        origin = to(plain, Proxy("127.0.0.1", proxy.port, None, Kind.SOCKS5), host="upstream.test")
        if reached is None:
            await refused(pools, origin, match="network unreachable")
        else:
            assert await fetch(pools, origin) == (200, b'{"a": 1}')
        pools.close()
        assert [host for host, _ in proxy.asked] == every[: 2 if reached else 3]
        await proxy.all_gone()


async def test_a_name_that_nobody_here_knows_never_reaches_a_socks5_proxy(pools: Pools) -> None:
    async with serving(Socks()) as proxy:
        through = Proxy("127.0.0.1", proxy.port, WRONG, Kind.SOCKS5)
        origin = Origin(scheme="http", host="no-such-host.invalid", port=80, proxy=through)
        with pytest.raises((Unreachable, TimedOut)):
            await fetch(pools, origin)
        assert proxy.wires == []


@pytest.mark.parametrize("login", [None, WRONG], ids=["none", "wrong"])
@pytest.mark.parametrize("kind", [Kind.SOCKS5, Kind.SOCKS5H])
async def test_a_socks_proxy_that_wants_other_credentials(
    pools: Pools, plain: Upstream, kind: Kind, login: Login | None
) -> None:
    async with serving(Socks(login=LOGIN)) as proxy:
        origin = to(plain, Proxy("127.0.0.1", proxy.port, login, kind))
        await refused(pools, origin, match="refused the credentials" if login else "wants credentials")
        assert (proxy.asked, len(proxy.wires)) == ([], 1)
        await proxy.all_gone(within=1)


@pytest.mark.parametrize(
    ("step", "said", "match"),
    [
        ("greeting", b"", "closed"),
        ("greeting", b"\x05", "closed"),
        ("greeting", b"\x05\xff", "wants other credentials"),
        ("greeting", b"\x05\x01", "wants other credentials"),
        ("greeting", b"\x00\x5a\x00\x00", "does not speak SOCKS5"),
        ("greeting", b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak SOCKS5"),
        ("login", b"", "closed"),
        ("login", b"\x01\x09", "refused the credentials"),
        ("request", b"", "closed"),
        ("request", b"\x05\x02", "refused: not allowed"),
        ("request", b"\x05\x63", "refused: 99"),
        ("request", b"\x04\x00", "does not speak SOCKS5"),
        ("request", b"\x05\x00\x00\x07", "does not speak SOCKS5"),
        ("request", b"\x05\x00\x00\x01\x7f", "closed"),
        ("request", b"\x05\x00\x00\x03", "closed"),
        ("request", b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x50more", "nobody asked for"),
    ],
)
async def test_a_socks_proxy_that_fails(pools: Pools, step: Step, said: bytes, match: str) -> None:
    async with serving(Socks(login=LOGIN, instead={step: said})) as proxy:
        through = Proxy("127.0.0.1", proxy.port, LOGIN, Kind.SOCKS5H)
        await refused(pools, Origin(scheme="http", host="upstream.test", port=80, proxy=through), match=match)
        await proxy.all_gone(within=1)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("greeting", b""),
        ("greeting", b"\x05"),
        ("login", b""),
        ("request", b""),
        ("request", b"\x05\x00\x00\x03\x20abc"),
        ("request", b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x50"),
    ],
)
async def test_a_socks_proxy_that_hangs(pools: Pools, step: Step, said: bytes) -> None:
    async with serving(Socks(login=LOGIN, instead={step: said}, hanging=True)) as proxy:
        through = Proxy("127.0.0.1", proxy.port, LOGIN, Kind.SOCKS5H)
        origin = Origin(scheme="https", host="upstream.test", port=443, proxy=through)
        await refused(pools, origin, TimedOut, "connect")
        await proxy.all_gone(within=1)


async def test_an_upstream_that_a_socks_proxy_loses(pools: Pools) -> None:
    async with upstream(then_resetting(GOOD[:30])) as server, serving(Socks()) as proxy:
        with pytest.raises(Broken):
            await fetch(pools, to(server, Proxy("127.0.0.1", proxy.port, None, Kind.SOCKS5)))
        await proxy.all_gone(within=1)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.usefixtures("trusted")
async def test_nobody_at_the_proxys_port(pools: Pools, kind: Kind) -> None:
    async with serving(Socks()) as proxy:
        port = proxy.port
    origin = Origin(scheme="https", host="127.0.0.1", port=443, proxy=Proxy("127.0.0.1", port, WRONG, kind))
    await refused(pools, origin, match="through the proxy 127.0.0.1")


# --- All of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["greeting", "handshake", "answer"])
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.usefixtures("trusted")
async def test_cancelling_reaches_the_proxy_at_once(
    pools: Pools, tls: ssl.SSLContext, certificate: Path, kind: Kind, phase: str
) -> None:
    http = {"greeting": then_hanging(), "handshake": then_hanging(ESTABLISHED), "answer": forwarding()}[phase]
    instead: dict[str, dict[Step, bytes]] = {
        "greeting": {"greeting": b""},
        "handshake": {"request": b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x50"},
        "answer": {},
    }
    async with (
        upstream(then_hanging(), tls=tls) as server,
        upstream(http, tls=tls if kind is Kind.HTTPS else None) as proxy,
        serving(Socks(instead=instead[phase], hanging=True)) as socks,
    ):
        through = Proxy("127.0.0.1", proxy.port if "http" in kind else socks.port, None, kind)
        asking = asyncio.create_task(fetch(pools, to(server, through, certificate), Timeouts()))
        async with asyncio.timeout(5):
            while not (server.asked if phase == "answer" else proxy.asked or socks.wires):
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert len(server.asked) == (phase == "answer")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert len(proxy.wires) + len(socks.wires) == 1
        await proxy.all_gone(within=1)
        await socks.all_gone(within=1)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.usefixtures("trusted")
async def test_much_goes_through_whole(pools: Pools, tls: ssl.SSLContext, certificate: Path, kind: Kind) -> None:
    much = bytes(range(256)) * 20_000
    async with (
        upstream(answering(whole(much)), tls=tls) as server,
        upstream(forwarding(), tls=tls if kind is Kind.HTTPS else None) as proxy,
        serving(Socks()) as socks,
    ):
        through = Proxy("127.0.0.1", proxy.port if "http" in kind else socks.port, None, kind)
        assert await fetch(pools, to(server, through, certificate), Timeouts(), much) == (200, much)
        assert server.asked[0].body == much
