"""Models that are somewhere else, over the real port: what a client gets when upstreams misbehave, and when."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil

from support.proxies import Socks, forwarding
from support.proxies import serving as serving_proxy
from support.serving import Server, serving
from support.stream_rules import check_stream
from support.upstreams import (
    CHUNKED_END,
    STREAM_HEAD,
    Behaviour,
    Upstream,
    answering,
    event,
    then_closing,
    then_hanging,
    then_resetting,
    upstream,
    whole,
)

SECRET = "sk-upstream-secret-0123456789"
TIMES = "connect_seconds = 1\nsend_seconds = 1\nfirst_byte_seconds = 0.4\nsilence_seconds = 0.4\n"

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
REPLY = json.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
).encode()


def piece(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if content is None else {"content": content}
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


STREAM = (STREAM_HEAD, piece("Hel"), piece("lo"), piece(None, "stop", usage=USAGE), event(b"[DONE]"), CHUNKED_END)


async def good(wire: Any, asked: Any) -> None:
    """What a healthy upstream does."""
    await wire.send(*(STREAM if asked.json.get("stream") else [whole(REPLY)]))


def target(server: Upstream, *more: str) -> str:
    lines = ["[[models.targets]]", 'backend = "openai"', f'base_url = "{server.url}"', f'api_key = "{SECRET}"', *more]
    return "\n".join([*lines, TIMES])


def model(name: str, *targets: str, settings: str = "attempts = 1") -> str:
    return "\n".join(["[[models]]", f'id = "{name}"', settings, *targets, ""])


class Client:
    def __init__(self, server: Server) -> None:
        self.server = server
        headers = {"authorization": f"Bearer {server.key}"}
        self.http = httpx2.AsyncClient(base_url=server.url, headers=headers, trust_env=False, timeout=10)

    async def create(self, model: str, *, stream: bool, **fields: Any) -> httpx2.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream, **fields}
        return await self.http.post("/v1/chat/completions", json=body)


@asynccontextmanager
async def served(home: Path, config: str, **environ: str) -> AsyncIterator[Client]:
    """Chatport with this configuration, in a process of its own, stopped at the end."""
    held = serving(home, config, environ=environ)
    server = await asyncio.to_thread(held.__enter__)
    client = Client(server)
    try:
        yield client
    finally:
        await client.http.aclose()
        await asyncio.to_thread(held.__exit__, None, None, None)


def said(reply: httpx2.Response, *, stream: bool) -> str:
    if not stream:
        text: str = reply.json()["choices"][0]["message"]["content"]
        return text
    assert reply.status_code == 200, reply.text
    assert "data: {" in reply.text, reply.text
    frames = [json.loads(line[6:]) for line in reply.text.split("\n\n") if line.startswith("data: {")]
    check_stream(frames, choices=1, include_usage=False)
    return "".join(choice["delta"].get("content") or "" for frame in frames for choice in frame["choices"])


FAULTS: dict[str, tuple[Behaviour, int, int]] = {
    "silent": (then_hanging(), 503, 503),
    "hangs in the head": (then_hanging(b"HTTP/1.1 200 OK\r\n"), 503, 503),
    "closes": (then_closing(), 500, 500),
    "resets": (then_resetting(), 500, 500),
    "resets in the head": (then_resetting(b"HTTP/1.1 200 OK\r\nContent-"), 500, 500),
    "resets in the body": (then_resetting(whole(REPLY)[:-5]), 500, 500),
    "lies about its length": (then_closing(whole(REPLY)[:-5]), 500, 500),
    "no HTTP": (answering(b"SSH-2.0-OpenSSH\r\n\r\n"), 500, 500),
    "bad JSON": (answering(whole(b'{"choices":')), 500, 500),
    "HTML": (answering(whole(b"<html>hi</html>", content_type="text/html")), 500, 500),
    "empty": (answering(whole(b"")), 500, 500),
    "400": (answering(whole(b'{"error":{"message":"n must be 1","param":"n"}}', "400 Bad Request")), 400, 400),
    "401": (answering(whole(b'{"error":{"message":"bad key"}}', "401 Unauthorized")), 500, 500),
    "404": (answering(whole(b"no such model", "404 Not Found")), 500, 500),
    "429": (answering(whole(b"{}", "429 Too Many", "Retry-After: 30")), 429, 429),
    "500": (answering(whole(b"oops", "500 Oops")), 500, 500),
    "502": (answering(whole(b"<html>", "502 Bad Gateway")), 503, 503),
    "503": (answering(whole(b"{}", "503 Down")), 503, 503),
    "504": (answering(whole(b"{}", "504 Late")), 503, 503),
}
"""What an upstream does, and the status that a client gets: whole, and streamed."""


async def test_every_fault_has_its_error_in_time_and_a_second_target_answers(tmp_path: Path) -> None:
    async with upstream(good) as healthy, AsyncServers([behaviour for behaviour, *_ in FAULTS.values()]) as broken:
        config = "".join(
            model(name.replace(" ", "-"), target(server))
            + model(f"{name.replace(' ', '-')}/2", target(server), target(healthy, "priority = 1"))
            for name, server in zip(FAULTS, broken, strict=True)
        )
        async with served(tmp_path, config) as client:
            process = psutil.Process(client.server.process.pid)
            for name in FAULTS:
                await meet(client, name)
            opened = process.num_fds()
            for name in [name for name in FAULTS if not name.startswith(("silent", "hangs"))]:
                await meet(client, name)
            assert process.num_fds() <= opened, "no connection leaks"
        told = client.server.log.read_text()
        assert SECRET not in told
        assert "127.0.0.1:" not in told.split("Try it.")[1].partition("\n\n")[2], (
            "where an upstream is, is the operator's"
        )


async def meet(client: Client, name: str) -> None:
    """One fault, whole and streamed: alone, and with a healthy target behind it."""
    for stream, status in zip((False, True), FAULTS[name][1:], strict=True):
        started = time.perf_counter()
        reply = await client.create(name.replace(" ", "-"), stream=stream)
        assert time.perf_counter() - started < 3, name
        assert (name, reply.status_code) == (name, status), reply.text
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert reply.headers["x-chatport-attempts"] == "1"
        assert reply.headers.get("retry-after") == ("30" if name == "429" else None)
        second = await client.create(f"{name.replace(' ', '-')}/2", stream=stream)
        if status == 400:
            assert second.status_code == 400
        else:
            assert (name, said(second, stream=stream)) == (name, "Hello")


class AsyncServers:
    """Several upstreams at once."""

    def __init__(self, behaviours: list[Behaviour]) -> None:
        self._open = [upstream(behaviour) for behaviour in behaviours]

    async def __aenter__(self) -> list[Upstream]:
        return [await one.__aenter__() for one in self._open]

    async def __aexit__(self, *_: object) -> None:
        for one in self._open:
            await one.__aexit__(None, None, None)


BREAKS: dict[str, Behaviour] = {
    "resets": then_resetting(STREAM_HEAD, piece("Hel")),
    "closes": then_closing(STREAM_HEAD, piece("Hel")),
    "falls silent": then_hanging(STREAM_HEAD, piece("Hel")),
    "ends without a finish": answering(STREAM_HEAD, piece("Hel"), event(b"[DONE]"), CHUNKED_END),
    "talks nonsense": answering(STREAM_HEAD, piece("Hel"), event(b"{"), CHUNKED_END),
    "says an error": answering(STREAM_HEAD, piece("Hel"), event({"error": {"message": "x"}}), CHUNKED_END),
}


async def test_a_stream_that_breaks_after_its_head_ends_with_an_error(tmp_path: Path) -> None:
    async with AsyncServers(list(BREAKS.values())) as broken, upstream(good) as healthy:
        config = "".join(
            model(f"m{index}", target(server), target(healthy, "priority = 1")) for index, server in enumerate(broken)
        )
        async with served(tmp_path, config) as client:
            for index, name in enumerate(BREAKS):
                reply = await client.create(f"m{index}", stream=True)
                frames = [line for line in reply.text.split("\n\n") if line]
                assert "Hel" in reply.text
                assert set(json.loads(frames[-1][6:])) == {"error"}, name
                assert "[DONE]" not in reply.text
                assert not any('"finish_reason":"stop"' in frame for frame in frames)
        assert len(healthy.asked) == 0, "after the first real chunk nobody takes over"


async def test_a_client_that_leaves_is_told_upstream_within_a_moment(tmp_path: Path) -> None:
    waiting: dict[str, Behaviour] = {
        "first byte": then_hanging(),
        "in the head": then_hanging(b"HTTP/1.1 200 OK\r\n"),
        "first chunk": then_hanging(STREAM_HEAD),
        "stream": then_hanging(STREAM_HEAD, piece("Hel")),
    }
    async with AsyncServers(list(waiting.values())) as servers:
        config = "".join(
            model(f"m{index}", target(server).replace("0.4", "60")) for index, server in enumerate(servers)
        )
        async with served(tmp_path, config) as client:
            for index, (phase, server) in enumerate(zip(waiting, servers, strict=True)):
                for stream in (False, True):
                    seen = len(server.asked)
                    asking = asyncio.create_task(client.create(f"m{index}", stream=stream))
                    while len(server.asked) == seen:
                        await asyncio.sleep(0.005)
                    await asyncio.sleep(0.1)
                    asking.cancel()
                    left = time.perf_counter()
                    await asyncio.gather(asking, return_exceptions=True)
                    await server.wires[-1].gone.wait()
                    assert time.perf_counter() - left < 0.1, (phase, stream)


async def test_a_family_passes_a_whole_list_on(tmp_path: Path) -> None:
    async def listing(wire: Any, asked: Any) -> None:
        if asked.line.startswith("GET"):
            await wire.send(whole(b'{"object":"list","data":[{"id":"a"},{"id":"dir/b"}]}'))
        else:
            await good(wire, asked)

    async with upstream(listing) as server:
        config = model("far/*", target(server)) + '[[models]]\nid = "echo"\nbackend = "scripted"\n'
        async with served(tmp_path, config) as client:
            deadline = time.monotonic() + 5
            names: list[str] = []
            while "far/a" not in names and time.monotonic() < deadline:
                names = [entry["id"] for entry in (await client.http.get("/v1/models")).json()["data"]]
            assert names == ["echo", "far/a", "far/dir/b"]
            reply = await client.create("far/dir/b", stream=False)
            assert (reply.json()["model"], server.asked[-1].json["model"]) == ("far/dir/b", "dir/b")
            assert (await client.create("far/c", stream=False)).status_code == 404
            assert (await client.http.get("/v1/models/far/a")).json()["id"] == "far/a"


CACHED: dict[str, Any] = {
    "prompt_tokens": 1000,
    "completion_tokens": 2,
    "total_tokens": 1002,
    "prompt_tokens_details": {
        "cached_tokens": 100,
        "audio_tokens": 0,
        "text_tokens": 800,
        "image_tokens": 200,
        "cache_write_tokens": 300,
    },
}
BY_KIND = "price = { prompt = 1, cached = 0.1, cache_write = 1.25, image = 3, completion = 2 }"


async def test_a_cache_written_and_images_are_told_and_posted_at_their_own_rates(tmp_path: Path) -> None:
    async def counting(wire: Any, asked: Any) -> None:
        stream = (STREAM_HEAD, piece("Hello"), piece(None, "stop", usage=CACHED), event(b"[DONE]"), CHUNKED_END)
        body = json.dumps(json.loads(REPLY) | {"usage": CACHED}).encode()
        await wire.send(*(stream if asked.json.get("stream") else [whole(body)]))

    async with upstream(counting) as server:
        priced = model("eyes", target(server), settings=f"attempts = 1\n{BY_KIND}")
        async with served(tmp_path, priced) as client:
            reply = await client.create("eyes", stream=False, store=True)
            streamed = await client.create("eyes", stream=True, stream_options={"include_usage": True})
            frames = [json.loads(line[6:]) for line in streamed.text.split("\n\n") if line.startswith("data: {")]
            stored = await client.http.get(f"/v1/chat/completions/{reply.json()['id']}")
            for usage in (reply.json()["usage"], frames[-1]["usage"], stored.json()["usage"]):
                assert usage["prompt_tokens_details"] == CACHED["prompt_tokens_details"]
            admin = {"authorization": f"Bearer {client.server.admin_key}"}
            for asked in (reply, streamed):
                path = f"/admin/requests/{asked.headers['x-request-id']}"
                story = (await client.http.get(path, headers=admin)).json()
                assert {line["kind"]: (line["tokens"], line["pico_each"]) for line in story["lines"]} == {
                    "prompt": (400, 1_000_000),
                    "cached": (100, 100_000),
                    "cache_write": (300, 1_250_000),
                    "image": (200, 3_000_000),
                    "completion": (2, 2_000_000),
                }
                assert story["cost_nano"] == story["charge_nano"] == 1_389_000


async def test_the_environments_proxies_are_used_and_their_passwords_never_told(
    tmp_path: Path, certificate: Path
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    login = (b"me", b"p@ss")
    async with (
        upstream(good) as plain,
        upstream(good, tls=tls) as secure,
        upstream(forwarding(login), tls=tls) as http,
        serving_proxy(Socks(login=login)) as socks,
    ):
        named = [target(server).replace("127.0.0.1", "upstream.test") for server in (plain, secure)]
        config = "".join(model(*row) for row in (("plain", named[0]), ("secure", named[1]), ("near", target(plain))))
        environ = {"SSL_CERT_FILE": str(certificate), "http_proxy": f"socks5h://me:p%40ss@127.0.0.1:{socks.port}"}
        for password, status in (("p%40ss", 200), ("hunter2", 503)):
            proxy = f"https://me:{password}@127.0.0.1:{http.port}"
            async with served(tmp_path / password[:3], config, https_proxy=proxy, **environ) as client:
                assert said(await client.create("plain", stream=True), stream=True) == "Hello"
                assert (await client.create("secure", stream=False)).status_code == status
                assert said(await client.create("near", stream=False), stream=False) == "Hello"
                log = client.server.log.read_text()
                assert ("refused CONNECT: 407" in log) == (status != 200)
                assert not any(secret in log for secret in ("p@ss", "p%40ss", "hunter2", "bWU6"))
        assert socks.asked == [("upstream.test", plain.port)] * 2
        assert [request.line for request in http.asked] == [f"CONNECT upstream.test:{secure.port} HTTP/1.1"] * 2


async def test_unknown_fields_reach_who_wants_them(tmp_path: Path) -> None:
    async with upstream(good) as server:
        config = (
            model("takes", target(server, 'extra_params = "forward"'))
            + model("drops", target(server, 'extra_params = "drop"'))
            + model("rejects", target(server))
        )
        async with served(tmp_path, config) as client:
            assert (await client.create("takes", stream=True, top_k=4, store=True)).status_code == 200
            assert server.asked[-1].json["top_k"] == 4
            assert "store" not in server.asked[-1].json
            assert server.asked[-1].json["stream_options"] == {"include_usage": True}
            assert (await client.create("drops", stream=False, top_k=4)).status_code == 200
            assert "top_k" not in server.asked[-1].json
            refused = await client.create("rejects", stream=False, top_k=4)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "top_k")


async def test_the_configuration_is_read_again(tmp_path: Path) -> None:
    async with upstream(good) as server:
        config = model("old", target(server))
        async with served(tmp_path, config) as client:
            admin = {"authorization": f"Bearer {client.server.admin_key}"}
            file = tmp_path / "chatport.toml"
            file.write_text(model("new", target(server)) + "[server]\nport = 1\n", encoding="utf-8")
            reply = await client.http.post("/admin/reload", headers=admin)
            assert reply.json() == {"models": ["new"], "restart_needed": []}, "the port came from a flag"
            assert (await client.create("old", stream=False)).status_code == 404
            assert said(await client.create("new", stream=True), stream=True) == "Hello"

            file.write_text('[[models]]\nid = "bad"\nbackend = "none"\n', encoding="utf-8")
            reply = await client.http.post("/admin/reload", headers=admin)
            assert reply.status_code == 400
            assert "chatport.toml:3: models[0].backend" in reply.json()["error"]["message"]
            assert (await client.create("new", stream=False)).status_code == 200

            file.write_text(model("third", target(server)), encoding="utf-8")
            client.server.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 5
            while (await client.create("third", stream=False)).status_code != 200:
                assert time.monotonic() < deadline
            file.write_text("[", encoding="utf-8")
            client.server.process.send_signal(signal.SIGHUP)
            while "The configuration was not changed" not in client.server.log.read_text():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            assert (await client.create("third", stream=False)).status_code == 200


async def test_a_stream_under_way_outlives_its_configuration(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(wire: Any, asked: Any) -> None:
        await wire.send(*STREAM[:2])
        await go_on.wait()
        await wire.send(*STREAM[2:])

    async with upstream(slow) as server, upstream(good) as other:
        config = model("m", target(server).replace("0.4", "9"))
        async with served(tmp_path, config) as client:
            asking = asyncio.create_task(client.create("m", stream=True))
            while not server.asked:
                await asyncio.sleep(0.01)
            (tmp_path / "chatport.toml").write_text(model("m", target(other)), encoding="utf-8")
            admin = {"authorization": f"Bearer {client.server.admin_key}"}
            await client.http.post("/admin/reload", headers=admin)
            assert said(await client.create("m", stream=True), stream=True) == "Hello"
            go_on.set()
            assert said(await asking, stream=True) == "Hello"


async def test_strictness_may_report_instead(tmp_path: Path) -> None:
    async with upstream(good) as server:
        config = (
            '[server]\nstrict = "report"\n' + model("m", target(server)) + '[[models]]\nid="e"\nbackend="scripted"\n'
        )
        async with served(tmp_path, config) as client:
            for name in ("m", "e", "m"):
                assert (await client.create(name, stream=False, top_k=4)).status_code == 200
            assert server.asked[-1].json["top_k"] == 4
            admin = {"authorization": f"Bearer {client.server.admin_key}"}
            (entry,) = (await client.http.get("/admin/unknown-fields", headers=admin)).json()["data"]
            assert (entry["field"], entry["count"]) == ("top_k", 3)
            assert (await client.http.get("/admin/unknown-fields")).status_code == 403
