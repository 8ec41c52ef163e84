"""The pool against a real server on loopback that misbehaves on purpose."""

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
from chatport.backends.http.pool import Pool, PoolLimits, Pools
from support.upstreams import (
    CHUNKED_END,
    Asked,
    Behaviour,
    Upstream,
    Wire,
    answering,
    asking,
    chunked,
    then_closing,
    then_hanging,
    then_resetting,
    upstream,
    whole,
)

HEAD = b"POST /v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
GOOD = whole(b'{"a": 1}')
SOON = Timeouts(connect=1, send=1, first_byte=0.3, between=0.3, total=5)


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    pools = Pools(PoolLimits(max_idle=2, idle_seconds=0.2, sweep_seconds=0.02))
    yield pools
    pools.close()


def origin(port: int, **more: object) -> Origin:
    return Origin(**{"scheme": "http", "host": "127.0.0.1", "port": port, **more})  # type: ignore[arg-type]


async def fetch(pool: Pool, timeouts: Timeouts = SOON, body: bytes = b"{}") -> bytes:
    async with asking(pool, HEAD + body, timeouts) as answer:
        return await answer.body(1000)


async def test_a_connection_is_used_again(pools: Pools) -> None:
    async with upstream(answering(GOOD)) as server:
        pool = pools.to(origin(server.port))
        assert pool is pools.to(origin(server.port))
        for _ in range(3):
            assert await fetch(pool) == b'{"a": 1}'
        assert (server.connections, len(server.asked), pool.kept, pool.in_use) == (1, 3, 1, 0)
        assert server.asked[0].body == b"{}"


async def test_at_once_each_has_its_own_and_few_are_kept(pools: Pools) -> None:
    async with upstream(answering(b"", GOOD, pause=0.03)) as server:
        pool = pools.to(origin(server.port))
        assert await asyncio.gather(*(fetch(pool) for _ in range(5))) == [b'{"a": 1}'] * 5
        assert (server.connections, pool.kept, pool.in_use) == (5, 2, 0)


async def test_what_is_idle_for_long_is_closed(pools: Pools) -> None:
    async with upstream(answering(GOOD)) as server:
        pool = pools.to(origin(server.port))
        await fetch(pool)
        await server.all_gone()
        assert pool.kept == 0


@pytest.mark.parametrize(
    "stale",
    [then_closing(), then_resetting()],
    ids=["closes", "resets"],
)
async def test_a_stale_connection_is_tried_once_more(pools: Pools, stale: Behaviour) -> None:
    async with upstream(answering(GOOD), stale, answering(GOOD)) as server:
        pool = pools.to(origin(server.port))
        await fetch(pool)
        assert await fetch(pool) == b'{"a": 1}'
        assert (server.connections, len(server.asked)) == (2, 3)


async def test_a_fresh_connection_is_not_tried_again(pools: Pools) -> None:
    async with upstream(then_closing(), answering(GOOD)) as server:
        pool = pools.to(origin(server.port))
        with pytest.raises(Broken):
            await fetch(pool)
        assert len(server.asked) == 1


async def test_after_one_byte_nothing_is_sent_again(pools: Pools) -> None:
    async with upstream(answering(GOOD), then_closing(GOOD[:1]), answering(GOOD)) as server:
        pool = pools.to(origin(server.port))
        await fetch(pool)
        with pytest.raises(Broken):
            await fetch(pool)
        assert len(server.asked) == 2


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used(pools: Pools) -> None:
    async with upstream(then_closing(GOOD), answering(GOOD)) as server:
        pool = pools.to(origin(server.port))
        await fetch(pool)
        await asyncio.sleep(0.05)
        assert await fetch(pool) == b'{"a": 1}'
        assert (server.connections, len(server.asked)) == (2, 2)


@pytest.mark.parametrize(
    ("behaviour", "fault"),
    [
        (then_hanging(), TimedOut),
        (then_hanging(GOOD[:30]), TimedOut),
        (then_hanging(GOOD[:-1]), TimedOut),
        (then_resetting(GOOD[:30]), Broken),
        (then_resetting(GOOD[:-1]), Broken),
        (then_closing(GOOD[:-1]), Broken),
        (answering(b"no HTTP at all\r\n\r\n"), Broken),
    ],
    ids=["silent", "hangs in the head", "hangs in the body", "resets in the head", "resets in the body", "lies", "ssh"],
)
async def test_a_bad_answer_is_a_fault_in_time(pools: Pools, behaviour: Behaviour, fault: type[Fault]) -> None:
    async with upstream(behaviour) as server:
        pool = pools.to(origin(server.port))
        started = time.perf_counter()
        with pytest.raises(fault):
            await fetch(pool)
        assert time.perf_counter() - started < 2
        assert (pool.in_use, pool.kept) == (0, 0)
        await server.all_gone()


async def test_a_trickle_is_as_good_as_any(pools: Pools) -> None:
    async with upstream(answering(*(GOOD[at : at + 1] for at in range(len(GOOD))), pause=0.001)) as server:
        assert await fetch(pools.to(origin(server.port))) == b'{"a": 1}'


async def test_an_endless_trickle_ends_with_the_total(pools: Pools) -> None:
    async def trickle(wire: Wire, asked: Asked) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not wire.writer.is_closing():
            await wire.send(chunked(b"x"), pause=0.02)

    async with upstream(trickle) as server:
        with pytest.raises(TimedOut, match="whole answer"):
            await fetch(pools.to(origin(server.port)), Timeouts(total=0.3))


async def test_nobody_there(pools: Pools) -> None:
    async with upstream(answering(GOOD)) as server:
        port = server.port
    with pytest.raises(Unreachable):
        await fetch(pools.to(origin(port)))


async def test_no_such_name(pools: Pools) -> None:
    with pytest.raises((Unreachable, TimedOut)):
        await fetch(pools.to(origin(1, host="no-such-host.invalid")), Timeouts(connect=2))


async def test_nobody_picks_up(pools: Pools) -> None:
    """A full backlog: the kernel answers no more SYNs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        await asyncio.sleep(0.05)
        with pytest.raises(TimedOut, match="connect"):
            await fetch(pools.to(origin(port)))
        for filler in fillers:
            filler.close()


async def test_a_name_with_an_address_that_refuses(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several addresses, the one that works."""
    async with upstream(answering(GOOD)) as server:

        async def several(host: str, port: int) -> list[tuple[object, ...]]:
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, ("127.0.0.1", 1)), (*kind, ("127.0.0.1", port))]

        monkeypatch.setattr(dial, "addresses", several)
        assert await fetch(pools.to(origin(server.port, host="several.test"))) == b'{"a": 1}'


async def test_an_answer_before_the_request_has_left_is_heard(pools: Pools) -> None:
    async def refuse(wire: Wire, asked: Asked) -> None:
        await wire.send(whole(b"too large", "413 Content Too Large", "Connection: close"))
        await asyncio.sleep(0.2)

    async with upstream(refuse) as server:
        pool = pools.to(origin(server.port))
        async with asking(pool, b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + b"x" * 50_000_000, SOON) as answer:
            assert (answer.status, await answer.body(100)) == (413, b"too large")
        assert (pool.in_use, pool.kept) == (0, 0)


async def test_a_server_that_reads_nothing_times_out_in_sending(pools: Pools) -> None:
    async def ignore(wire: Wire, asked: Asked) -> None:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(5)

    async with upstream(ignore) as server:
        head = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
        with pytest.raises(TimedOut, match="send"):
            async with asking(pools.to(origin(server.port)), head + b"x" * 50_000_000, SOON):
                pass


@pytest.mark.parametrize("phase", ["connect", "first byte", "body"])
async def test_cancelling_reaches_the_upstream_at_once(pools: Pools, phase: str) -> None:
    behaviour = then_hanging(GOOD[:-1]) if phase == "body" else then_hanging()
    async with upstream(behaviour) as server:
        pool = pools.to(origin(server.port))
        asking = asyncio.create_task(fetch(pool, Timeouts()))
        if phase == "connect":
            await asyncio.sleep(0)
        else:
            while not server.asked:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (pool.in_use, pool.kept) == (0, 0)
        await server.all_gone(within=0.1)


async def test_leaving_early_closes(pools: Pools) -> None:
    async with upstream(then_hanging(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")) as server:
        async with asking(pools.to(origin(server.port)), HEAD + b"{}", SOON) as answer:
            assert answer.status == 200
        await server.all_gone(within=0.1)


async def test_an_end_that_comes_later_keeps_the_connection(pools: Pools) -> None:
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"all")
    async with upstream(answering(stream, CHUNKED_END, pause=0.03)) as server:
        pool = pools.to(origin(server.port))
        async with asking(pool, HEAD + b"{}", SOON) as answer:
            while not (data := answer.take()):
                await answer.more()
            assert data == b"all"
            answer.finish()
        assert pool.in_use == 1
        await asyncio.sleep(0.08)
        assert (pool.in_use, pool.kept) == (0, 1)
        await fetch(pool)
        assert server.connections == 1


async def test_closing_ends_what_is_under_way(pools: Pools) -> None:
    async with upstream(then_hanging()) as server:
        pool = pools.to(origin(server.port))
        asking = asyncio.create_task(fetch(pool))
        while not server.asked:
            await asyncio.sleep(0.005)
        pools.close()
        with pytest.raises(Broken):
            await asking
        with pytest.raises(Unreachable):
            await fetch(pool)


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def secure(certificate: Path) -> AsyncIterator[Upstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with upstream(answering(GOOD), tls=context) as server:
        yield server


async def test_a_trusted_certificate(pools: Pools, secure: Upstream, certificate: Path) -> None:
    pool = pools.to(origin(secure.port, scheme="https", ca_file=certificate))
    assert [await fetch(pool) for _ in range(2)] == [b'{"a": 1}'] * 2
    assert secure.connections == 1


@pytest.mark.filterwarnings("ignore")  # the test's own server complains about the handshake
async def test_a_certificate_that_nobody_vouches_for(pools: Pools, secure: Upstream) -> None:
    with pytest.raises(Unreachable, match="certificate"):
        await fetch(pools.to(origin(secure.port, scheme="https")))
    assert not secure.asked


async def test_a_certificate_for_another_host(pools: Pools, secure: Upstream, certificate: Path) -> None:
    with pytest.raises(Unreachable, match="certificate"):
        await fetch(pools.to(origin(secure.port, scheme="https", host="localhost", ca_file=certificate)))
