"""Where the CPU of a small request goes: Chatport cut short behind one stage after the other.

    python benchmarks/stages.py [--rounds 4] [--seconds 1.5]

Each stage is a server of its own that does all that comes before, answers there, and leaves out the rest; the load, the
upstream and the measure are those of `gateway.py`, and rounds of all stages alternate. What a stage costs is the
difference to the one before. Timing single functions tells less: in a server that does many things in turn each of
them costs two to three times what it costs in a loop of its own, where the caches stay warm.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec

from chatport.backends.base import Backend
from chatport.cli import main as chatport_cli
from chatport.policy.meter import Going, Meter
from chatport.targets import Target
from chatport.web import app, chat
from chatport.web.exchange import JSON, Exchange
from chatport.web.site import Route, Site
from chatport.web.turn import Turn
from chatport.wire.chat import ChatRequest, Usage
from chatport.wire.decode import decode_request
from gateway import LOAD_CORE, Running, chatport, free_port, load, pinned, result, started

STAGES = {
    "port": "connection, parser, task, the reply's head",
    "application": "path, key, exchange, log line",
    "decoding": "JSON and the rules between fields",
    "upstream": "the request upstream and its answer, as bytes",
    "backend": "bound, reading the answer, encoding it anew",
    "pipeline": "plan, attempts, envelope, headers",
    "account": "hold and posting in SQLite, in groups",
}
BODY = b'{"id":"x"}' * 60
CONNECTIONS = 16


# --- A server that ends early ----------------------------------------------------------------------------------------


async def answer_at_port(_app: app.App, turn: Turn) -> None:
    await turn.body(1 << 24)
    await turn.reply(200, [(b"content-type", JSON)], BODY)


async def read(exchange: Exchange, site: Site) -> ChatRequest:
    body = await exchange.json_body(site.settings.max_body_bytes)
    return decode_request(body, site.settings.decode_limits)


async def answer_in_application(exchange: Exchange, site: Site) -> None:
    await exchange.json_body(site.settings.max_body_bytes)
    await exchange.reply(200, BODY, [(b"content-type", JSON)])


async def answer_decoded(exchange: Exchange, site: Site) -> None:
    await read(exchange, site)
    await exchange.reply(200, BODY, [(b"content-type", JSON)])


def place(exchange: Exchange, site: Site, request: ChatRequest) -> tuple[Backend, Target]:
    """Where the request goes, without any choice."""
    attempts = site.services.pipeline.attempts
    target = attempts.catalog.find(request, exchange.caller).targets[0]
    return attempts._backends[target.backend], target


async def answer_from_upstream(exchange: Exchange, site: Site) -> None:
    request = await read(exchange, site)
    backend, target = place(exchange, site, request)
    answer = await backend._ask(target, request)  # type: ignore[attr-defined]
    try:
        body = await answer.body(1 << 24)
    finally:
        backend._pool.give_back(answer)  # type: ignore[attr-defined]
    await exchange.reply(200, body, [(b"content-type", JSON)])


async def answer_from_backend(exchange: Exchange, site: Site) -> None:
    request = await read(exchange, site)
    backend, target = place(exchange, site, request)
    answer = await backend.complete(target, request, await backend.bound(target, request))
    await exchange.reply(200, msgspec.json.encode(answer), [(b"content-type", JSON)])


async def cover_nothing(_meter: Meter, _going: Going) -> None:
    return None


async def settle_nothing(meter: Meter, _usage: Usage) -> None:
    meter._settled = True


HANDLERS = {
    "application": answer_in_application,
    "decoding": answer_decoded,
    "upstream": answer_from_upstream,
    "backend": answer_from_backend,
}


def cut_behind(stage: str) -> None:
    """Has this process answer behind a stage."""
    if stage == "port":
        setattr(app.App, "__call__", answer_at_port)  # noqa: B010  what mypy forbids, and rightly, anywhere else
    elif stage == "pipeline":
        setattr(Meter, "cover", cover_nothing)  # noqa: B010  as above
        setattr(Meter, "settle", settle_nothing)  # noqa: B010  as above
    elif stage in HANDLERS:
        chat.create = HANDLERS[stage]
        route = Route(path="/v1/chat/completions", methods={"POST": chat.create})
        app.ROUTES = (route,)  # type: ignore[assignment]


# --- Measuring -------------------------------------------------------------------------------------------------------


def main() -> None:
    if sys.argv[1:2] == ["--cut-behind"]:
        cut_behind(sys.argv[2])
        sys.argv[1:3] = []
        chatport_cli()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    options = parser.parse_args()
    upstream = free_port()
    command = [sys.executable, str(Path(__file__).with_name("gateway.py")), "--serve-upstream", str(upstream)]
    serving = subprocess.Popen(pinned(LOAD_CORE, command))
    try:
        time.sleep(0.5)
        print(table(measured(upstream, options.rounds, options.seconds)))
    finally:
        serving.terminate()
        serving.wait()


def measured(upstream: int, rounds: int, seconds: float) -> dict[str, float]:
    """CPU µs of a small request, up to and with each stage."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers: dict[str, Running] = {}
        for stage in STAGES:
            gateway = chatport(upstream)
            gateway.command[1:3] = [__file__, "--cut-behind", stage]
            servers[stage] = stack.enter_context(started(gateway, folder / stage))
        for _ in range(rounds):
            for server in servers.values():
                before = server.cpu_ns()
                done = result(load(server.gateway.port, "small", CONNECTIONS, seconds))["done"]
                server.note("small", (server.cpu_ns() - before) / 1e3 / max(done, 1))
        return {stage: statistics.median(server.figures["small"]) for stage, server in servers.items()}


def table(costs: dict[str, float]) -> str:
    lines = ["| stage | what | µs | all so far |", "|---|---|---|---|"]
    before = 0.0
    for stage, cost in costs.items():
        lines.append(f"| {stage} | {STAGES[stage]} | {cost - before:.0f} | {cost:.0f} |")
        before = cost
    return "\n".join(lines)


if __name__ == "__main__":
    main()
