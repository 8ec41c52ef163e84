"""The program as an operator meets it: a start, a second start, an end in the midst of work."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPResponse
from pathlib import Path

import psutil
import pytest

from support.asking import CREATE, Api, request_body
from support.serving import SCRIPTED, Server, environment_for, free_port, serving
from support.stream_rules import check_stream, read_stream


def test_a_stop_lets_running_answers_finish(tmp_path: Path) -> None:
    """SIGTERM in the midst of a stream: it ends whole, the program then ends with 0 (`serving` checks that)."""
    with serving(tmp_path, SCRIPTED) as server:
        api = Api(server)
        fields = request_body({"model": "slow", "stream": True})
        with api.http.stream("POST", CREATE, json=fields) as response:
            pieces = response.iter_bytes()
            received = next(pieces)
            server.process.send_signal(signal.SIGTERM)
            received += b"".join(pieces)
        check_stream(read_stream(received))
        api.close()
        assert server.process.wait(20) == 0


HALTING = """
[server]
drain_seconds = {drain}
[[models]]
id = "echo"
backend = "scripted"
reply = ["a", "b", "c"]
delay_ms = 3000
"""
ENDS = pytest.mark.parametrize(
    ("drain", "signals"),
    [
        pytest.param(600, [signal.SIGTERM, signal.SIGINT], id="second signal"),
        pytest.param(0.2, [signal.SIGTERM], id="drain limit"),
    ],
)


@ENDS
def test_a_stream_that_is_cut_short_says_so(tmp_path: Path, drain: float, signals: list[signal.Signals]) -> None:
    with serving(tmp_path, HALTING.format(drain=drain)) as server:
        api = Api(server)
        with api.http.stream("POST", CREATE, json=request_body({"stream": True})) as response:
            pieces = response.iter_bytes()
            received = next(pieces)
            end_with(server, signals)
            received += b"".join(pieces)
        assert b"[DONE]" not in received
        last = json.loads(received.removesuffix(b"\n\n").rpartition(b"data: ")[2])
        assert (last["error"]["type"], last["error"]["code"]) == ("service_unavailable", "service_unavailable")
        assert server.process.wait(20) == 0
        assert " 503 " in access_line(server)
        api.close()


@ENDS
def test_a_request_that_is_cut_short_gets_a_503(tmp_path: Path, drain: float, signals: list[signal.Signals]) -> None:
    with serving(tmp_path, HALTING.format(drain=drain)) as server, running_request(server) as sock:
        end_with(server, signals)
        with closing(HTTPResponse(sock)) as reply:
            reply.begin()
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert json.load(reply)["error"]["code"] == "service_unavailable"
        assert server.process.wait(20) == 0
        assert " 503 " in access_line(server)


@contextmanager
def running_request(server: Server) -> Iterator[socket.socket]:
    """A connection with a create on it that is being answered: the server's 100 says so."""
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(request_body({})).encode()
    head = (
        f"POST {CREATE} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {server.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        sock.sendall(head.encode())
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        yield sock


def end_with(server: Server, signals: list[signal.Signals]) -> None:
    for number in signals:
        server.process.send_signal(number)


def access_line(server: Server) -> str:
    (line,) = [line for line in server.log.read_text().splitlines() if f"POST {CREATE} " in line]
    return line


def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path, SCRIPTED) as server:
        api = Api(server)
        kept = api.completion(store=True)
        api.post({}, idempotency_key="over-a-restart")
        first = api.post({}, idempotency_key="over-a-restart").json()
        api.close()
    with serving(tmp_path, SCRIPTED) as server:
        api = Api(server)
        assert api.http.get(f"{CREATE}/{kept['id']}").json()["choices"] == kept["choices"]
        assert api.post({}, idempotency_key="over-a-restart").json() == first
        api.close()


def test_a_second_server_on_the_port_says_so(scripted_server: Server, tmp_path: Path) -> None:
    config = tmp_path / "chatport.toml"
    config.write_text(SCRIPTED, encoding="utf-8")
    port = scripted_server.url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "chatport", "serve", "--port", port, "--config", str(config)]
    done = subprocess.run(
        command, env=environment_for(tmp_path), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode not in {0, 1}
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_the_first_start_shows_keys_that_work(tmp_path: Path) -> None:
    """Without bootstrap keys two are minted; nothing but their hashes is kept."""
    environ = {"CHATPORT_BOOTSTRAP_KEY": "", "CHATPORT_BOOTSTRAP_ADMIN_KEY": ""}
    with serving(tmp_path, SCRIPTED, environ=environ) as server:
        words = server.log.read_text().replace('"', " ").replace("'", " ").split()
        keys = {word.rsplit("=", 1)[-1] for word in words if "sk-cp-" in word and "…" not in word}
        assert len(keys) == 2
        for key in keys:
            api = Api(server, key)
            assert api.http.get("/v1/models").status_code == 200
            api.close()
        kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and ".db" in str(path)]
        assert kept
        assert not any(key.encode() in data for data in kept for key in keys)


def default_home(tmp_path: Path, model: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2-135m.gguf").symlink_to(model)
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="what counts as resident is another thing on other systems")
def test_an_idle_default_server_takes_at_most_400_mb(tmp_path: Path, smollm2_path: Path) -> None:
    with serving(default_home(tmp_path, smollm2_path)) as server:
        resident = psutil.Process(server.process.pid).memory_info().rss
    assert resident <= 400_000_000


def test_an_idle_default_server_loads_only_what_it_needs(tmp_path: Path, smollm2_path: Path) -> None:
    """Python itself writes down each module that it imports."""
    with serving(default_home(tmp_path, smollm2_path), environ={"PYTHONPROFILEIMPORTTIME": "1"}) as server:
        loaded = set(re.findall(r"^import time: .*\| +(\S+)$", server.log.read_text(), re.MULTILINE))
    assert {"xllamacpp", "jinja2", "chatport.backends.on_demand.backend"} <= loaded
    assert not {name.partition(".")[0] for name in loaded} & {
        "alembic",
        "anyio",
        "asyncpg",
        "genai_prices",
        "h11",
        "jsonschema",
        "llguidance",
        "prompt_toolkit",
        "pydantic",
        "rich",
        "starlette",
        "yaml",
    }
    assert not loaded & {
        "chatport.backends.llama.weights",
        "chatport.backends.on_demand.process",
        "chatport.backends.openai",
        "chatport.backends.scripted",
        "chatport.cli.price_list",
        "chatport.store.postgres",
        "chatport.upstreams",
        "sqlalchemy.dialects.postgresql",
        "sqlalchemy.ext",
        "sqlalchemy.orm",
    }


def test_only_our_port_listens(model_server: Server) -> None:
    """The engine inside brings a listener of its own, which must not be reachable."""
    tree = [process := psutil.Process(model_server.process.pid), *process.children(recursive=True)]
    connections = [each for process in tree for each in process.net_connections("inet")]
    listening = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    assert listening == {int(model_server.url.rsplit(":", 1)[1])}


def test_a_port_of_ones_own(tmp_path: Path) -> None:
    """`--port` wins over the file's."""
    config = f"[server]\nport = {free_port()}\n" + SCRIPTED.replace("[server]\n", "")
    with serving(tmp_path, config) as server:
        assert f":{server.url.rsplit(':', 1)[1]}" in server.log.read_text()
