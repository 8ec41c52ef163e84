"""What the server costs on top of the engine it embeds: tokens/s and time to first token, side by side in one run.

    python benchmarks/engine.py [--model PATH.gguf] [--streams 1,4,8,16] [--rounds 3] [--exact] [--json FILE]

Two servers are kept loaded in processes of their own, the bare engine (xllamacpp, driven by its own threads) and
Chatport (a real port, driven over HTTP from here), with the same model, slots, window, threads, and time that these
spin before they sleep (`--bare-spin 300000`: the engine's own default, some 4 % faster with one stream on an idle
machine, and a fifth of the speed where another process has one of two cores; see backends/llama/engine.py). Rounds
alternate A/B/A/B, each figure is the best round of its side, so that a noisy neighbour hurts neither. Every request has
a prompt of its own of about 64 tokens and makes exactly 96 (the end tokens are banned by logit_bias on both sides).
Temperature is 1, the API's default; `--exact` measures temperature 0, where Chatport gives up the prompt cache beside
other requests so that the answer is the same with a cold and a warm one, and the bare engine does not.

Goals (issue 2): tokens/s >= 0.95 of bare at 1 and 4 streams, >= 0.90 at 8 and 16; first token at most 15 ms later at 1
stream; loop lag p99 <= 10 ms; ready <= 3 s; resident <= 400 MB with the default configuration (a test holds 390).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from chatport.backends.llama.engine import SPIN

NEW_TOKENS = 96
SLOTS = 16
CONTEXT = 8192
END_TOKENS = (0, 2)
"""`<|endoftext|>` and `<|im_end|>` of SmolLM2."""
KEY = "sk-bench-000000000000000000000000"
SYSTEM = "You are a helpful assistant."
READY_WITHIN = 60.0
SAMPLE_EVERY = 0.005
"""Seconds between two looks at the event loop's lag."""
WATCHED_WAVES = 2
"""Waves of `SLOTS` streams during which the lag is watched: apart from the others, since watching costs, too."""


FIRST_SERIAL = 1_000_000
"""Both sides count in numbers of seven digits: as many tokens."""


SEVERAL_FRAMES = 16 * 1024
"""Bytes that wake a client once it has its first token. It shares the cores with the model, and the bare engine has no
client: woken for each token, it would cost as much as the server that is measured."""


def prompt_text(serial: int) -> str:
    story = "a lighthouse keeper, a storm, and a ship that came home late one winter"
    return f"Story number {serial}. Please tell me a long story about {story}."


def temperature(exact: bool) -> float:
    return 0.0 if exact else 1.0


@dataclass
class Wave:
    """One wave of N requests at once."""

    tokens: int
    seconds: float
    first: list[float]
    """Seconds to the first token, one per request."""

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


# --- The bare engine: a child process that runs a wave for each number it reads --------------------------------------


def bare_engine(model: str, threads: int, exact: bool) -> None:
    import xllamacpp as xl  # noqa: PLC0415  only this child needs it

    params = xl.CommonParams()
    params.model.path, params.n_parallel, params.n_ctx, params.kv_unified = model, SLOTS, CONTEXT, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_batch = params.n_ubatch = 512
    params.cache_ram_mib = 0
    params.verbosity, params.fit_params, params.ui = 0, False, False
    params.hostnames = [os.path.join(tempfile.mkdtemp(prefix="bare-"), "e.sock")]
    server = xl.Server(params)
    print("ready", flush=True)
    serial = FIRST_SERIAL
    for line in sys.stdin:
        streams = int(line)
        serial += streams
        wave = bare_wave(server, range(serial - streams, serial), exact)
        print(json.dumps(wave.__dict__), flush=True)


def bare_wave(server: Any, serials: range, exact: bool) -> Wave:
    first: list[float] = []
    made: list[int] = []
    start = time.perf_counter()

    def one(serial: int) -> None:
        seen = [0.0, 0]

        def on_chunk(chunk: dict[str, Any]) -> bool:
            if not seen[0] and chunk.get("choices"):
                seen[0] = time.perf_counter() - start
            if usage := chunk.get("usage"):
                seen[1] = usage["completion_tokens"]
            return False

        server.handle_completions(bare_body(serial, exact), on_chunk)
        first.append(seen[0])
        made.append(int(seen[1]))

    workers = [threading.Thread(target=one, args=(serial,)) for serial in serials]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Wave(sum(made), time.perf_counter() - start, first)


def bare_body(serial: int, exact: bool) -> dict[str, Any]:
    turns = [("system", SYSTEM), ("user", prompt_text(serial))]
    prompt = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"
    return {
        "prompt": prompt,
        "max_tokens": NEW_TOKENS,
        "temperature": temperature(exact), "top_k": 0, "top_p": 1.0, "min_p": 0.0,
        "logit_bias": [[token, -100] for token in END_TOKENS],
        "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


class Bare:
    def __init__(self, model: str, threads: int, exact: bool, spin: int) -> None:
        child = [sys.executable, __file__, "--child", "bare", "--model", model, "--threads", str(threads)]
        self.process = subprocess.Popen(
            child + ["--exact"] * exact,
            env=os.environ | {"GOMP_SPINCOUNT": str(spin)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def wave(self, streams: int) -> Wave:
        assert self.process.stdin is not None
        print(streams, file=self.process.stdin, flush=True)
        return Wave(**json.loads(self._read()))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


# --- Chatport: a child process with a real port and a watch on its event loop ----------------------------------------


def our_server(config_file: str, watch: bool) -> None:
    """Serves as `chatport serve` does; prints the loop's lag (ms: p50, p99, max) when it ends, 0 if not watched."""
    from chatport import config, runtime  # noqa: PLC0415  only this child needs them

    lags: list[float] = []
    watching: list[asyncio.Task[None]] = []

    async def watch_the_loop() -> None:
        while True:
            due = time.perf_counter() + SAMPLE_EVERY
            await asyncio.sleep(SAMPLE_EVERY)
            lags.append(time.perf_counter() - due)

    async def on_ready(running: runtime.Runtime) -> None:
        await running.keys.register(KEY, name="bench", now=time.time())
        if watch:
            watching.append(asyncio.create_task(watch_the_loop()))
        print("ready", flush=True)

    async def serve() -> None:
        settings = config.load(Path(config_file), os.environ)
        sock = socket.create_server((settings.server.host, settings.server.port))
        await runtime.serve(settings, sock, on_ready)
        for task in watching:
            task.cancel()

    runtime.run(serve())
    ordered = sorted(lag * 1000 for lag in lags) or [0.0]
    print(json.dumps([ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1]]), flush=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Ours:
    def __init__(self, model: str, threads: int, exact: bool, home: Path, *, watch: bool = False) -> None:
        self.exact = exact
        self.port = free_port()
        home.mkdir(exist_ok=True)
        config_file = home / "chatport.toml"
        config_file.write_text(
            f'[server]\nport = {self.port}\n[[models]]\nid = "m"\nbackend = "llama"\npath = {json.dumps(model)}\n'
            f'slots = {SLOTS}\ncontext = {CONTEXT}\nthreads = {threads}\nsystem_prompt = "{SYSTEM}"\n'
        )
        environ = os.environ | {"CHATPORT_HOME": str(home)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--child", "ours", "--config", str(config_file)] + ["--watch"] * watch,
            stdout=subprocess.PIPE, text=True, env=environ,
        )  # fmt: skip
        assert self.process.stdout is not None
        while (line := self.process.stdout.readline()) and line.strip() != "ready":
            pass
        self.serial = 2 * FIRST_SERIAL

    def wave(self, streams: int) -> Wave:
        self.serial += streams
        serials = range(self.serial - streams, self.serial)
        start = time.perf_counter()
        with ThreadPoolExecutor(streams) as clients:
            done = list(clients.map(lambda serial: self._one(serial, start), serials))
        return Wave(sum(tokens for tokens, _ in done), time.perf_counter() - start, [first for _, first in done])

    def _one(self, serial: int, start: float) -> tuple[int, float]:
        body = {
            "model": "m", "stream": True, "stream_options": {"include_usage": True},
            "temperature": temperature(self.exact), "max_tokens": NEW_TOKENS,
            "messages": [{"role": "user", "content": prompt_text(serial)}],
            "logit_bias": {str(token): -100 for token in END_TOKENS},
        }  # fmt: skip
        payload = json.dumps(body).encode()
        first, answer = 0.0, b""
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
                b"content-type: application/json\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
                % (KEY.encode(), len(payload), payload)
            )
            while data := client.recv(SEVERAL_FRAMES):
                answer += data
                if not first and b'"content":"' in answer.replace(b'"content":""', b""):
                    first = time.perf_counter() - start
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, SEVERAL_FRAMES)
        last = next(line for line in reversed(answer.splitlines()) if b'"choices":[]' in line)
        return json.loads(last.removeprefix(b"data: "))["usage"]["completion_tokens"], first

    def close(self) -> list[float]:
        """Ends the server; its loop's lag in ms: p50, p99, max."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=60)
        lag: list[float] = json.loads(out.strip().splitlines()[-1])
        return lag


# --- What the default installation takes -----------------------------------------------------------------------------


def default_start(model: str, home: Path) -> tuple[float, float]:
    """Seconds until `chatport serve` is ready, and MB resident after one answer, with the default configuration."""
    port = free_port()
    home.mkdir(exist_ok=True)
    environ = os.environ | {"CHATPORT_HOME": str(home), "CHATPORT_BOOTSTRAP_KEY": KEY}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "chatport", "serve", "--port", str(port), "--model", model],
        env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not answers(port):
            assert time.perf_counter() - start < READY_WITHIN, "not ready"
            time.sleep(0.01)
        return time.perf_counter() - start, psutil.Process(process.pid).memory_info().rss / 1e6
    finally:
        process.terminate()
        process.wait(60)


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
            sock.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            return b" 200 " in sock.recv(64)
    except OSError:
        return False


# --- The run ---------------------------------------------------------------------------------------------------------


def best(waves: Sequence[Wave]) -> tuple[float, float]:
    """Tokens/s of the best wave, and the best wave's median time to the first token in ms."""
    return max(wave.rate for wave in waves), min(statistics.median(wave.first) for wave in waves) * 1000


def measure(options: argparse.Namespace, streams: Sequence[int], home: Path) -> dict[str, Any]:
    model, threads, exact = options.model, options.threads, options.exact
    bare, ours = Bare(model, threads, exact, options.bare_spin), Ours(model, threads, exact, home / "ours")
    table = []
    try:
        for side in (bare, ours):
            side.wave(SLOTS)  # thrown away: from here on every slot has had a prompt, as in a server that has run
        for n in streams:
            a, b = [], []
            for _ in range(options.rounds):
                a.append(bare.wave(n))
                b.append(ours.wave(n))
            (bare_rate, bare_first), (our_rate, our_first) = best(a), best(b)
            table.append({
                "streams": n, "bare_tok_s": bare_rate, "ours_tok_s": our_rate, "ratio": our_rate / bare_rate,
                "bare_first_ms": bare_first, "ours_first_ms": our_first,
            })  # fmt: skip
    finally:
        ours.close()
        bare.close()
    lag = loop_lag(model, threads, exact, home / "watched")
    ready, resident = default_start(model, home / "default")
    return {"streams": table, "loop_lag_ms": lag, "ready_s": ready, "resident_mb": resident}


def loop_lag(model: str, threads: int, exact: bool, home: Path) -> list[float]:
    """Of the event loop, with every slot busy; ms: p50, p99, max."""
    ours = Ours(model, threads, exact, home, watch=True)
    for _ in range(WATCHED_WAVES):
        ours.wave(SLOTS)
    return ours.close()


def show(result: dict[str, Any]) -> None:
    print(f"{'streams':>8}{'bare tok/s':>12}{'ours tok/s':>12}{'ratio':>8}{'bare first ms':>15}{'ours first ms':>15}")
    for row in result["streams"]:
        print(
            f"{row['streams']:>8}{row['bare_tok_s']:>12.1f}{row['ours_tok_s']:>12.1f}{row['ratio']:>8.3f}"
            f"{row['bare_first_ms']:>15.0f}{row['ours_first_ms']:>15.0f}"
        )
    p50, p99, top = result["loop_lag_ms"]
    print(f"loop lag p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {top:.1f} ms")
    print(f"default server: ready after {result['ready_s']:.2f} s, {result['resident_mb']:.0f} MB resident")


def default_model() -> str:
    import platformdirs  # noqa: PLC0415

    home = os.environ.get("CHATPORT_HOME") or platformdirs.user_data_dir("chatport", appauthor=False)
    return str(Path(home) / "models" / "smollm2-135m.gguf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=default_model(), help="the GGUF file (default: the fetched SmolLM2)")
    parser.add_argument("--streams", default="1,4,8,16", help="concurrent streams to measure")
    parser.add_argument("--rounds", type=int, default=3, help="rounds per side; the best counts")
    parser.add_argument("--threads", type=int, default=len(psutil.Process().cpu_affinity() or [1]))
    parser.add_argument("--bare-spin", type=int, default=SPIN, help="the bare engine's GOMP_SPINCOUNT (default: ours)")
    parser.add_argument("--exact", action="store_true", help="temperature 0 instead of 1")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--child", choices=["bare", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    parser.add_argument("--watch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "bare":
        return bare_engine(options.model, options.threads, options.exact)
    if options.child == "ours":
        return our_server(options.config, options.watch)
    streams = [int(n) for n in options.streams.split(",")]
    with tempfile.TemporaryDirectory() as home:
        result = measure(options, streams, Path(home))
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
