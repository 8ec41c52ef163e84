"""A connection, fed by hand: framing, bad HTTP, limits, time, turns, leaving. No socket, no clock."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatport.web.app import WebSettings, create_app
from chatport.web.limits import HTTPLimits
from chatport.web.protocol import MAX_HEADERS, MAX_WAITING
from support.memory_port import MemoryPort
from support.raw_http import Reply, request
from support.site import FakeServices, chat_body

GOOD = request(body=chat_body())
MODELS = request("GET", "/v1/models")
HEAD = request().replace(b"Content-Length: 0\r\n\r\n", b"")
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def open_port(services: FakeServices, **limits: float) -> MemoryPort:
    return MemoryPort(create_app(services, WebSettings()), HTTPLimits(**limits))  # type: ignore[arg-type]


def assert_refused(reply: Reply) -> None:
    """The one form that every refusal of bad HTTP has."""
    assert reply.status == 400
    assert (reply.error["type"], reply.error["param"]) == ("invalid_request_error", None)
    assert reply.closes
    assert reply.whole


# --- Bad HTTP --------------------------------------------------------------------------------------------------------

BAD = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "lower-case method": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "space in path": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes in path": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab in path": b"GET /\t HTTP/1.1\r\nHost: a\r\n\r\n",
    "no slash": b"GET v1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no colon": HEAD + b"X\r\n\r\n",
    "no name": HEAD + b": x\r\n\r\n",
    "space in name": HEAD + b"A b: x\r\n\r\n",
    "space before colon": HEAD + b"Content-Length : 3\r\n\r\nabc",
    "header before the first": b"GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n",
    "folded header": HEAD + b"X: a\r\n b\r\n\r\n",
    "folded Transfer-Encoding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "NUL in header": HEAD + b"X: a\0b\r\n\r\n",
    "control character in header": HEAD + b"X: a\x01b\r\n\r\n",
    "bare LF after the first line": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "bare LF after a header": HEAD + b"X: a\n\r\n",
    "bare LF at the end": HEAD + b"\n",
    "bare CR": HEAD + b"X: a\rY: b\r\n\r\n",
    "both lengths": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, other order": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "negative length": HEAD + b"Content-Length: -3\r\n\r\nabc",
    "hexadecimal length": HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    "empty length": HEAD + b"Content-Length: \r\n\r\nabc",
    "length overflow": HEAD + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n",
    "chunked, identity": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip, chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "vertical tab, chunked": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
    "chunk size overflow": CHUNKED + b"fffffffffffffffff\r\nab",
    "chunk size no number": CHUNKED + b"zz\r\nab",
    "chunk size negative": CHUNKED + b"-1\r\nab",
    "chunk size with 0x": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "chunk size with space": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "chunk line with bare LF": CHUNKED + b"3\nabc\n0\n\n",
    "chunk longer than it said": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("sent", [pytest.param(sent, id=name) for name, sent in BAD.items()])
async def test_bad_http_is_refused_and_nothing_behind_it_is_heard(services: FakeServices, sent: bytes) -> None:
    whole, split = open_port(services), open_port(services)
    (reply,) = await whole.exchange(sent, MODELS, GOOD)
    assert_refused(reply)
    assert whole.closed()
    (again,) = await split.exchange(*[sent[at : at + 1] for at in range(len(sent))], MODELS, GOOD)
    assert again.error == reply.error
    assert services.answers.calls == []


@pytest.mark.parametrize("sent", [pytest.param(sent, id=name) for name, sent in BAD.items()])
async def test_bad_http_waits_for_its_turn(services: FakeServices, sent: bytes) -> None:
    port = open_port(services)
    assert await port.exchange(request(body=chat_body("wait")) + sent) == []
    services.answers.go_on.set()
    await port.settle()
    first, second = port.replies()
    assert first.status == 200
    assert_refused(second)


# --- What is good ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(len(GOOD)))
async def test_a_request_may_come_in_any_two_pieces(services: FakeServices, at: int) -> None:
    (reply,) = await open_port(services).exchange(GOOD[:at], GOOD[at:])
    assert (reply.status, reply.body) == (200, chat_body())


async def test_a_chunked_body_with_extensions_and_trailers(services: FakeServices) -> None:
    body = chat_body()
    sent = b"%x;name=value\r\n%b\r\n0\r\nAuthorization: Bearer sk-bad\r\n\r\n" % (len(body), body)
    replies = await open_port(services).exchange(CHUNKED + sent + MODELS)
    assert [reply.status for reply in replies] == [200, 200]
    assert replies[0].body == body


async def test_keep_alive_after_an_error_that_came_before_the_body(services: FakeServices) -> None:
    """Clients often send head and body in two segments; the reply to the head must not cost them the connection."""
    port = open_port(services)
    head, body = request(body=chat_body(), key="sk-bad").split(b"\r\n\r\n")
    (refused,) = await port.exchange(head + b"\r\n\r\n")
    assert (refused.status, refused.closes) == (401, False)
    assert [reply.status for reply in await port.exchange(body, GOOD)] == [401, 200]


async def test_continue_is_said_when_the_body_is_wanted(services: FakeServices) -> None:
    port = open_port(services)
    sent = request(body=chat_body(), headers=[("Expect", "100-Continue")])
    head, body = sent.split(b"\r\n\r\n")
    assert [reply.status for reply in await port.exchange(head + b"\r\n\r\n")] == [100]
    assert [reply.status for reply in await port.exchange(body)] == [100, 200]


@pytest.mark.parametrize(("key", "length", "status"), [("sk-bad", 10, 401), ("sk-good", 1 << 40, 413)])
async def test_continue_is_not_said_to_what_is_refused(
    services: FakeServices, key: str, length: int, status: int
) -> None:
    port = open_port(services)
    sent = request(key=key, headers=[("Expect", "100-continue")]).replace(b"Length: 0", b"Length: %d" % length)
    (refused,) = await port.exchange(sent)
    assert (refused.status, refused.closes) == (status, True), "the client may never send the body it announced"


async def test_continue_is_not_said_to_http_1_0(services: FakeServices) -> None:
    sent = request(body=chat_body(), headers=[("Expect", "100-continue")]).replace(b"HTTP/1.1", b"HTTP/1.0")
    (reply,) = await open_port(services).exchange(sent)
    assert (reply.status, reply.closes) == (200, True)


async def test_a_stream_to_http_1_0_ends_with_the_connection(services: FakeServices) -> None:
    services.answers.go_on.set()
    port = open_port(services)
    (reply,) = await port.exchange(request(body=chat_body("stream")).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert reply.body == b"data: 1\n\ndata: [DONE]\n\n"
    assert "transfer-encoding" not in reply.headers
    assert port.transport.is_closing()


async def test_head_has_no_body(services: FakeServices) -> None:
    replies = await open_port(services).exchange(request("HEAD", "/v1/models"), MODELS, methods=("HEAD", "GET"))
    assert [reply.status for reply in replies] == [405, 200]


@pytest.mark.parametrize("target", ["*", "http://elsewhere"])
async def test_targets_without_a_path(services: FakeServices, target: str) -> None:
    (reply,) = await open_port(services).exchange(request("OPTIONS", target))
    assert reply.status in {404, 405}


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
@pytest.mark.parametrize("at", [60, -70, -30])
async def test_an_upgrade_is_ignored(services: FakeServices, upgrade: str, at: int) -> None:
    """Java's HttpClient asks for h2c with its first POST, and means the body for us all the same."""
    port = open_port(services)
    asks = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", upgrade), ("HTTP2-Settings", "AAEAAEAA")]
    sent = request(body=chat_body(), headers=asks)
    replies = await port.exchange(sent[:at], sent[at:] + MODELS)
    assert [reply.status for reply in replies] == [200, 200]
    assert replies[0].body == chat_body()


async def test_an_upgrade_with_chunks_and_a_close(services: FakeServices) -> None:
    port = open_port(services)
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: close, upgrade\r\n\r\n")
    (reply,) = await port.exchange(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(chat_body()), chat_body()))
    assert (reply.body, reply.closes) == (chat_body(), True)


async def test_an_upgrade_in_http_1_0(services: FakeServices) -> None:
    sent = request(body=chat_body(), headers=[("Connection", "upgrade"), ("Upgrade", "h2c")])
    (reply,) = await open_port(services).exchange(
        sent.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: test\r\n", b"")
    )
    assert (reply.status, reply.closes) == (200, True)


async def test_after_connection_close_nothing_is_heard(services: FakeServices) -> None:
    port = open_port(services)
    (reply,) = await port.exchange(request("GET", "/v1/models", headers=[("Connection", "close")]) + GOOD)
    assert reply.closes
    assert port.closed()
    assert services.answers.calls == []


# --- Turns -----------------------------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(services: FakeServices) -> None:
    port = open_port(services)
    bodies = [chat_body("wait"), *(chat_body(f"m{i}") for i in range(MAX_WAITING))]
    assert await port.exchange(b"".join(request(body=body) for body in bodies)) == []
    assert len(services.answers.calls) == 1, "one at a time"
    services.answers.go_on.set()
    for _ in bodies:
        await port.settle()
    assert [reply.body for reply in port.replies()] == bodies


async def test_too_many_waiting_requests(services: FakeServices) -> None:
    port = open_port(services)
    await port.exchange(request(body=chat_body("wait")) + GOOD * (MAX_WAITING + 3))
    services.answers.go_on.set()
    for _ in range(MAX_WAITING):
        await port.settle()
    *answered, last = port.replies()
    assert [reply.status for reply in answered] == [200] * (1 + MAX_WAITING)
    assert_refused(last)


async def test_a_body_far_ahead_of_its_turn(services: FakeServices) -> None:
    port = open_port(services, read_ahead_bytes=1000)
    big = request(body=chat_body(user="x" * 2000))
    await port.exchange(request(body=chat_body("wait")) + big + GOOD)
    services.answers.go_on.set()
    await port.settle()
    first, second = port.replies()
    assert first.status == 200
    assert_refused(second)


async def test_a_running_requests_body_may_come_all_at_once(services: FakeServices) -> None:
    body = chat_body(user="x" * 5000)
    (reply,) = await open_port(services, read_ahead_bytes=1000).exchange(request(body=body))
    assert (reply.status, reply.body) == (200, body)


async def test_a_body_that_nobody_takes_is_not_kept(services: FakeServices) -> None:
    port = open_port(services, max_body_bytes=1000)
    head = request("GET", "/v1/models", headers=[("Content-Length", "100000")])
    (reply,) = await port.exchange(head + b"x" * 2000)
    assert (reply.status, reply.closes) == (200, True)


# --- Limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param([b"GET /" + b"a" * 3000], id="path"),
        pytest.param([b"GET / HTTP/1.1\r\nHost: a\r\nX: ", *[b"a" * 500] * 6], id="header value"),
        pytest.param([b"GET / HTTP/1.1\r\nHost: a\r\n", *[b"a" * 500] * 6], id="header name"),
        pytest.param([b"GET / HTTP/1.1\r\nHost: a\r\n", *[b"X: a\r\n" * 100] * 6], id="headers"),
        pytest.param([b"\r\n" * 1500, b"\r\n"], id="empty lines"),
        pytest.param([CHUNKED, b"3;", *[b"a" * 500] * 6], id="chunk extension"),
        pytest.param([CHUNKED, b"3\r\nabc\r\n0\r\nX: ", *[b"a" * 500] * 6], id="trailer"),
        pytest.param([CHUNKED, b"3\r\nabc\r\n0\r\n", *[b"X: a\r\n" * 100] * 6], id="trailers"),
    ],
)
async def test_what_never_ends_is_cut(services: FakeServices, endless: list[bytes]) -> None:
    port = open_port(services, max_header_bytes=2000)
    (reply,) = await port.exchange(*endless)
    assert_refused(reply)


async def test_a_head_of_just_the_limit_passes(services: FakeServices) -> None:
    filler = request("GET", "/v1/models", headers=[("X", "")])
    counted = len(b"/v1/models") + sum(len(line) + 2 for line in filler.split(b"\r\n")[1:-2])
    for spare, status in ((0, 200), (-1, 400)):
        port = open_port(services, max_header_bytes=counted + 100 + spare)
        (reply,) = await port.exchange(request("GET", "/v1/models", headers=[("X", "a" * 100)]))
        assert reply.status == status


async def test_header_lines_are_counted(services: FakeServices) -> None:
    for more, status in ((MAX_HEADERS - 2, 200), (MAX_HEADERS - 1, 400)):
        (reply,) = await open_port(services).exchange(request("GET", "/v1/models", headers=[("X", "a")] * more))
        assert reply.status == status


@pytest.mark.parametrize("framing", ["Content-Length: 100000000", "Transfer-Encoding: chunked"])
async def test_a_refused_upload_hears_why(services: FakeServices, framing: str) -> None:
    """The reply goes out, our side ends, and what the client still sends is thrown away: no reset takes the reply."""
    port = open_port(services, drain_bytes=5000)
    head = request(key="sk-bad").replace(b"Content-Length: 0", framing.encode())
    piece = b"x" * 4000 if framing.startswith("Content") else b"fa0\r\n" + b"x" * 4000 + b"\r\n"
    await port.exchange(head)
    replies = await port.exchange(*[piece] * 3)
    assert [reply.status for reply in replies] == [401]
    assert port.closed()
    assert not port.transport.is_closing(), "still reading"
    port.leave()
    await port.settle()
    assert port.state.connections == set()


async def test_too_many_connections(services: FakeServices) -> None:
    first = open_port(services, max_connections=1)
    limits = HTTPLimits(max_connections=1)
    second = MemoryPort(first.connection.application, limits, first.state)
    (reply,) = await second.exchange(GOOD)
    assert (reply.status, reply.error["code"]) == (503, "service_unavailable")
    assert (reply.headers["retry-after"], reply.closes) == ("1", True)
    assert [answer.status for answer in await first.exchange(GOOD)] == [200]
    second.leave()
    first.leave()
    await first.settle()
    third = MemoryPort(first.connection.application, limits, first.state)
    assert [answer.status for answer in await third.exchange(GOOD)] == [200]


# --- Time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "said"), [(GOOD[:30], "head"), (GOOD[:-1], "body"), (CHUNKED + b"3\r\nab", "body")])
async def test_what_takes_too_long(services: FakeServices, sent: bytes, said: str) -> None:
    port = open_port(services, header_seconds=10, body_seconds=10)
    await port.exchange(sent)
    port.sweep(9)
    assert await port.exchange() == []
    port.sweep(11)
    (reply,) = await port.exchange()
    assert_refused(reply)
    assert f"request's {said} took over 10 s" in reply.error["message"]
    assert services.answers.calls == []


async def test_dripping_does_not_gain_time(services: FakeServices) -> None:
    port = open_port(services, header_seconds=10)
    await port.exchange(b"GET / HTTP/1.1\r\n", b"H", b"o")
    port.sweep(11)
    assert_refused((await port.exchange(b"st: a\r\n\r\n"))[0])


async def test_silence_is_closed_without_a_word(services: FakeServices) -> None:
    for sent in (b"", b"\r\n", GOOD):
        port = open_port(services, idle_seconds=75)
        replies = len(await port.exchange(sent))
        port.sweep(74)
        assert not port.closed()
        port.sweep(76)
        assert port.closed()
        assert len(port.replies()) == replies


async def test_an_answer_may_take_as_long_as_it_takes(services: FakeServices) -> None:
    port = open_port(services)
    await port.exchange(request(body=chat_body("wait")))
    port.sweep(100_000)
    services.answers.go_on.set()
    assert [reply.status for reply in await port.exchange()] == [200]


async def test_a_slow_next_request_does_not_end_the_running_one(services: FakeServices) -> None:
    port = open_port(services)
    await port.exchange(request(body=chat_body("wait")), GOOD[:30])
    port.sweep(100)
    services.answers.go_on.set()
    first, second = await port.exchange()
    assert first.status == 200
    assert_refused(second)


async def test_a_client_that_takes_nothing_of_its_reply(services: FakeServices) -> None:
    port = open_port(services, stall_seconds=60)
    await port.exchange(request(body=chat_body("flood")))
    port.transport.unsent = 100_000
    port.connection.pause_writing()
    sent = services.answers.sent
    await port.settle()
    assert services.answers.sent <= sent + 1, "the pipeline must wait"
    port.sweep(59)
    port.transport.unsent = 50_000
    port.sweep(59.5)
    port.sweep(100)
    assert not port.aborted(), "it took some"
    port.sweep(120)
    await port.settle()
    assert port.aborted()
    assert services.answers.cancelled == 1


async def test_lingering_ends(services: FakeServices) -> None:
    port = open_port(services, linger_seconds=30)
    await port.exchange(b"junk\r\n\r\n")
    assert not port.transport.is_closing()
    port.sweep(31)
    assert port.aborted()


# --- Leaving ---------------------------------------------------------------------------------------------------------

PHASES = {
    "reading the body": request(body=chat_body("wait"))[:-1],
    "waiting": request(body=chat_body("wait")),
    "streaming": request(body=chat_body("stream")),
    "flooding": request(body=chat_body("flood")),
    "a request waits": request(body=chat_body("wait")) + GOOD,
    "a request is half sent": request(body=chat_body("stream")) + GOOD[:40],
    "a body is half sent": request(body=chat_body("stream")) + GOOD[:-2],
    "garbage waits": request(body=chat_body("wait")) + b"junk\r\n\r\n",
}


@pytest.mark.parametrize("sent", [pytest.param(sent, id=phase) for phase, sent in PHASES.items()])
@pytest.mark.parametrize("how", ["FIN", "reset"])
async def test_a_client_that_leaves_cancels_its_request_once(services: FakeServices, sent: bytes, how: str) -> None:
    port = open_port(services)
    await port.exchange(sent)
    running = len(services.answers.calls)
    if how == "FIN":
        port.leave()
    else:
        port.transport.abort()
    await port.settle()
    assert services.answers.cancelled == running <= 1
    assert port.state.tasks == set()
    assert port.state.connections == set()
    assert len(services.answers.calls) == running, "nothing that waited was begun"


async def test_leaving_is_seen_while_much_waits_to_be_sent(services: FakeServices) -> None:
    port = open_port(services, stall_seconds=60)
    await port.exchange(request(body=chat_body("flood")))
    port.transport.unsent = 100_000
    port.connection.pause_writing()
    port.leave()
    await port.settle()
    assert services.answers.cancelled == 1
    assert not port.aborted()
    port.sweep(61)
    await port.settle()
    assert port.aborted()
    assert port.state.connections == set()


async def test_leaving_after_the_reply_cancels_nothing(services: FakeServices) -> None:
    port = open_port(services)
    await port.exchange(GOOD)
    port.leave()
    await port.settle()
    assert services.answers.cancelled == 0


# --- The server's end ------------------------------------------------------------------------------------------------


async def test_shutdown_closes_what_is_idle_and_lets_the_rest_finish(services: FakeServices) -> None:
    idle, half, busy = (open_port(services) for _ in range(3))
    await half.exchange(GOOD[:30])
    await busy.exchange(request(body=chat_body("wait")) + GOOD)
    for port in (idle, half, busy):
        port.connection.shutdown()
    assert (idle.closed(), half.closed(), busy.closed()) == (True, True, False)
    services.answers.go_on.set()
    (reply,) = await busy.exchange()
    assert (reply.status, reply.closes) == (200, True)
    assert busy.closed()
    assert len(services.answers.calls) == 1


async def test_shutdown_waits_for_a_body_under_way(services: FakeServices) -> None:
    port = open_port(services)
    await port.exchange(GOOD[:-3])
    port.connection.shutdown()
    (reply,) = await port.exchange(GOOD[-3:], GOOD)
    assert (reply.status, reply.closes) == (200, True)


# --- Anything at all -------------------------------------------------------------------------------------------------

FRAGMENTS = [GOOD, MODELS, CHUNKED, *BAD.values(), b"\r\n", b"0\r\n\r\n", b"\0", b"Content-Length: 5\r\n"]


@st.composite
def hostile_bytes(draw: st.DrawFn) -> list[bytes]:
    """Requests, good and bad, one behind the other, with bytes changed, left out and put in, in random pieces."""
    sent = bytearray(b"".join(draw(st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=30), max_size=5))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(sent) - 1)))
        sent[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    cuts = sorted(draw(st.lists(st.integers(0, len(sent)), max_size=4)))
    return [bytes(sent[a:b]) for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=hostile_bytes())
async def test_whatever_comes_in_what_goes_out_is_http(services: FakeServices, pieces: list[bytes]) -> None:
    port = open_port(services)
    for _ in range(3):
        replies = await port.exchange(*pieces)
        pieces = []
    for reply in replies:
        assert reply.whole
        assert reply.headers["x-request-id"]
        if reply.status != 200:
            assert 400 <= reply.status < 500
            assert reply.error
    port.leave()
    await port.settle()
    assert port.state.tasks == set()
    assert port.state.connections == set()
