"""What a request through Chatport costs, beside nginx's plain proxy and LiteLLM, in one run on one machine.

    python benchmarks/gateway.py [chatport nginx litellm] [--litellm PATH] [--seconds 2] [--rounds 3] [--markdown FILE]

Every gateway stands between the same load and the same upstream, both made here, over loopback only. The gateway has
one core, load and upstream have another. The figure that holds on a noisy machine is CPU per request: the CPU clock of
the gateway's whole process tree over the requests it answered. Medians of the rounds; rounds of all gateways alternate,
so that a noisy neighbour hurts all of them alike.

nginx is the floor: it checks no key and reads no body. It is taken from PATH, LiteLLM too unless `--litellm` names its
program; whoever is not there is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import uvloop

KEY = "sk-bench-000000000000000000000000"
MODEL = "gpt-4o-mini"
GATEWAY_CORE, LOAD_CORE = 0, 1
CONNECTIONS = 16
READY_WITHIN = 90.0
CHUNKS = 64
PACE = 0.01
"""Seconds between two chunks of a paced stream."""
HELD_STREAMS = 200
"""Streams that are open while memory is looked at."""

SHAPES = {"small": (300, False, 0.0), "32 KB": (32_768, False, 0.0), "stream": (300, True, PACE)}
"""Bytes of the prompt, streamed or not, seconds between chunks."""


# --- The upstream ----------------------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 80, "completion_tokens": CHUNKS, "total_tokens": 80 + CHUNKS}


def reply() -> bytes:
    message = {"role": "assistant", "content": "word " * CHUNKS}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
    body = json.dumps(whole | {"usage": USAGE}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def event(delta: dict[str, str], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return chunked(b"data: %b\n\n" % json.dumps(chunk | {"choices": [choice]} | more).encode())


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def content_length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)


REPLY = reply()
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST, PIECE, FINISH = event({"role": "assistant", "content": ""}), event({"content": "word "}), event({}, "stop")
LAST = event({}, usage=USAGE) + chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Answers every POST with the same: whole, or one chunk after the other."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.received = b""
        self.gone = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return
        length = content_length(head)
        if len(body) < length:
            return
        self.received = body[length:]
        if b'"stream":true' in body.replace(b" ", b""):
            self.transport.write(STREAM_HEAD + FIRST)
            asyncio.get_running_loop().call_later(PACE, self.say, CHUNKS)
        else:
            self.transport.write(REPLY)

    def say(self, left: int) -> None:
        if self.gone:
            return
        if left:
            self.transport.write(PIECE)
            asyncio.get_running_loop().call_later(PACE, self.say, left - 1)
        else:
            self.transport.write(FINISH + LAST)


async def serve_upstream(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


# --- The load --------------------------------------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer."""

    def __init__(self, request: bytes, stream: bool) -> None:
        self.request, self.end = request, b"0\r\n\r\n" if stream else b""
        self.done, self.bad, self.stopped = 0, 0, False
        self.latencies: list[float] = []
        self.received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.received, self.asked = b"", time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.whole():
            return
        self.latencies.append(time.perf_counter() - self.asked)
        if self.received.startswith(b"HTTP/1.1 200"):
            self.done += 1
        else:
            self.bad += 1
        if not self.stopped:
            self.ask()

    def whole(self) -> bool:
        if self.end or b"chunked" in self.received[:1000].lower():
            return self.received.endswith(b"0\r\n\r\n")
        head, found, body = self.received.partition(b"\r\n\r\n")
        return bool(found) and len(body) >= content_length(head)


async def put_load(port: int, shape: str, connections: int, seconds: float) -> dict[str, float]:
    size, stream, _ = SHAPES[shape]
    request = http_request(size, stream)
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Client(request, stream), "127.0.0.1", port)
        clients.append(client)
    await asyncio.sleep(seconds)
    for client in clients:
        client.stopped = True
    latencies = [latency for client in clients for latency in client.latencies]
    return {
        "done": sum(client.done for client in clients),
        "bad": sum(client.bad for client in clients),
        "p50_us": statistics.median(latencies) * 1e6 if latencies else 0.0,
    }


def http_request(size: int, stream: bool) -> bytes:
    words = "the model answers a user who asks about rate limits, caf\u00e9 and numbers 12345 "
    text = (words * (size // 70 + 1))[:size]
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": text}], "temperature": 0.7}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    data = json.dumps(body, ensure_ascii=False).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


# --- The gateways ----------------------------------------------------------------------------------------------------


@dataclass
class Gateway:
    """A server under test: how it is started in a folder of its own, in front of an upstream's port."""

    name: str
    command: list[str]
    files: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    port: int = 0


def chatport(upstream: int) -> Gateway:
    config = f"""
[[models]]
id = "{MODEL}"
price = {{ prompt = 0.15, cached = 0.075, completion = 0.6 }}
[[models.targets]]
backend = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
api_key = "sk-upstream"
"""
    port = free_port()
    command = [sys.executable, "-m", "chatport", "serve", "--port", str(port), "--config", "chatport.toml"]
    environ = {"CHATPORT_HOME": ".", "CHATPORT_BOOTSTRAP_KEY": KEY}
    return Gateway("chatport", command, {"chatport.toml": config}, environ, port)


def nginx(upstream: int, program: str) -> Gateway:
    port = free_port()
    config = f"""
daemon off; master_process off; pid nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 2048; }}
http {{
  access_log off; client_body_temp_path body; proxy_temp_path proxy; client_body_buffer_size 1m;
  fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 1000000000;
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""
    return Gateway("nginx", [program, "-p", ".", "-c", "nginx.conf"], {"nginx.conf": config}, {}, port)


def litellm(upstream: int, program: str) -> Gateway:
    port = free_port()
    config = f"""
model_list:
  - model_name: {MODEL}
    litellm_params: {{model: openai/{MODEL}, api_base: "http://127.0.0.1:{upstream}/v1", api_key: sk-upstream}}
general_settings: {{master_key: {KEY}}}
"""
    command = [program, "--config", "litellm.yaml", "--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
    environ = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return Gateway("litellm", command, {"litellm.yaml": config}, environ, port)


@dataclass
class Running:
    gateway: Gateway
    process: subprocess.Popen[bytes]
    start_s: float = 0.0
    figures: dict[str, list[float]] = field(default_factory=dict)

    def tree(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def cpu_ns(self) -> int:
        """The CPU clock of all its processes, threads included."""
        return sum(time.clock_gettime_ns((~process.pid << 3) | 2) for process in self.tree())

    def resident_mb(self) -> float:
        return sum(process.memory_info().rss for process in self.tree()) / 1e6

    def note(self, figure: str, value: float) -> None:
        self.figures.setdefault(figure, []).append(value)

    def median(self, figure: str) -> float:
        return statistics.median(self.figures[figure])


@contextmanager
def started(gateway: Gateway, folder: Path) -> Iterator[Running]:
    folder.mkdir()
    for name, text in gateway.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with (folder / "log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            pinned(GATEWAY_CORE, gateway.command),
            cwd=folder,
            env=environ | gateway.environ,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        running = Running(gateway, process)
        try:
            wait_for_answer(running, folder)
            running.start_s = time.perf_counter() - began
            yield running
        finally:
            for one in reversed(running.tree()):
                one.terminate()
            process.wait(20)


def pinned(core: int, command: list[str]) -> list[str]:
    taskset = shutil.which("taskset")
    cores = os.cpu_count() or 1
    return command if taskset is None or cores < 2 else [taskset, "-c", str(core), *command]


def wait_for_answer(running: Running, folder: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline and running.process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", running.gateway.port), 1) as sock:
                sock.settimeout(10)
                sock.sendall(http_request(300, stream=False))
                if sock.recv(65536).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"{running.gateway.name} does not answer:\n{(folder / 'log').read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# --- Measuring -------------------------------------------------------------------------------------------------------


def load(port: int, shape: str, connections: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--put-load", str(port), shape, str(connections), str(seconds)]
    return subprocess.Popen(pinned(LOAD_CORE, command), stdout=subprocess.PIPE, text=True)


def result(loading: subprocess.Popen[str]) -> dict[str, float]:
    told: dict[str, float] = json.loads(loading.communicate()[0])
    return told


def measure(running: Running, direct: int, seconds: float) -> None:
    """One round of every figure."""
    port = running.gateway.port
    for shape in SHAPES:
        before = running.cpu_ns()
        told = result(load(port, shape, CONNECTIONS, max(seconds, 1.5) if shape == "stream" else seconds))
        running.note(shape, (running.cpu_ns() - before) / 1e3 / max(told["done"], 1))
        running.note("bad", told["bad"])
        if shape == "small":
            running.note("requests/s", told["done"] / seconds)
    alone = result(load(port, "small", 1, seconds / 2))["p50_us"]
    running.note("added p50", alone - result(load(direct, "small", 1, seconds / 2))["p50_us"])
    held = load(port, "stream", HELD_STREAMS, 1.5)
    time.sleep(1.2)
    running.note("MB with 200 streams", running.resident_mb())
    result(held)


def chunk_us(running: Running) -> float:
    return (running.median("stream") - running.median("small")) / (CHUNKS + 4)


COLUMNS = (
    "gateway",
    "small µs",
    "32 KB µs",
    "chunk µs",
    "requests/s",
    "added p50 µs",
    "MB",
    "MB, 200 streams",
    "start s",
)


def table(every: list[Running]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for one in every:
        cells = [
            one.gateway.name,
            f"{one.median('small'):.0f}",
            f"{one.median('32 KB'):.0f}",
            f"{chunk_us(one):.0f}",
            f"{one.median('requests/s'):.0f}",
            f"{one.median('added p50'):.0f}",
            f"{one.median('MB idle'):.0f}",
            f"{one.median('MB with 200 streams'):.0f}",
            f"{one.start_s:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chart(every: list[Running]) -> str:
    """CPU per small request, a bar each."""
    most = max(one.median("small") for one in every)
    rows = [(one.gateway.name, one.median("small")) for one in every]
    bars = [f"{name:<9} {'█' * max(1, round(50 * value / most))} {value:.0f} µs" for name, value in rows]
    return "\n".join(["```text", *bars, "```"])


def chosen(names: list[str], upstream: int, litellm_program: str | None) -> list[Gateway]:
    found: list[Gateway] = []
    for name in names or ["chatport", "nginx", "litellm"]:
        program = litellm_program if name == "litellm" and litellm_program else shutil.which(name)
        if name == "chatport":
            found.append(chatport(upstream))
        elif program is None:
            print(f"{name}: not installed here, left out", file=sys.stderr)
        else:
            found.append(nginx(upstream, program) if name == "nginx" else litellm(upstream, program))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gateways", nargs="*", metavar="GATEWAY", help="chatport, nginx, litellm; default: all")
    parser.add_argument("--litellm", metavar="PATH", help="LiteLLM's program, where it is not on PATH")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table and the chart there, too")
    parser.add_argument("--serve-upstream", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--put-load", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_upstream:
        uvloop.run(serve_upstream(options.serve_upstream))
    elif options.put_load:
        port, shape, connections, seconds = options.put_load
        print(json.dumps(uvloop.run(put_load(int(port), shape, int(connections), float(seconds)))))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    direct = free_port()
    command = [sys.executable, __file__, "--serve-upstream", str(direct)]
    upstream = subprocess.Popen(pinned(LOAD_CORE, command))
    try:
        time.sleep(0.5)
        with tempfile.TemporaryDirectory() as folder:
            every = measured(chosen(options.gateways, direct, options.litellm), Path(folder), direct, options)
    finally:
        upstream.terminate()
        upstream.wait()
    text = f"{table(every)}\n\n{chart(every)}\n"
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")


def measured(gateways: list[Gateway], folder: Path, direct: int, options: argparse.Namespace) -> list[Running]:
    """Each gateway in turn, round after round; only one of them runs at a time."""
    every: dict[str, Running] = {}
    for round_ in range(options.rounds):
        for gateway in gateways:
            with started(gateway, folder / f"{gateway.name}-{round_}") as running:
                known = every.setdefault(gateway.name, running)
                known.process = running.process
                known.note("MB idle", known.resident_mb())
                result(load(gateway.port, "small", CONNECTIONS, options.seconds / 2))  # warm
                measure(known, direct, options.seconds)
                if any(known.figures["bad"]):
                    print(f"{gateway.name}: {known.figures['bad']} bad answers", file=sys.stderr)
    return list(every.values())


if __name__ == "__main__":
    main()
