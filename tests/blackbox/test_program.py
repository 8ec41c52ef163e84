"""The program as an operator meets it: a start, a second start, an end in the midst of work."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx2
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


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    halting = '[[models]]\nid = "echo"\nbackend = "scripted"\nreply = ["a", "b", "c"]\ndelay_ms = 5000\n'
    with serving(tmp_path, halting) as server:
        api = Api(server)
        with api.http.stream("POST", CREATE, json=request_body({"stream": True})) as response:
            pieces = response.iter_bytes()
            received = next(pieces)
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGINT)
            with pytest.raises(httpx2.TransportError):
                received += b"".join(pieces)
        assert b"[DONE]" not in received
        assert server.process.wait(20) == 0
        api.close()


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
        assert not any(key.encode() in path.read_bytes() for path in tmp_path.glob("*.db*") for key in keys)


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
