"""The real program on a real port: what the black-box tests talk to.

A server is a subprocess with a home, a configuration and keys of its own, on a free loopback port. It is stopped with
SIGTERM and must then exit with 0: every test that uses one also tests a clean end.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

START_SECONDS = 60.0
"""Loading the model takes about 1 s on an idle machine; others may be using the cores."""

STOP_SECONDS = 20.0

NOTICE_SECONDS = 10.0
"""The server notices a change of keys within 1 s; the rest is for a busy machine."""

KEY = "sk-cp-test-0123456789abcdefghijklmnop"
ADMIN_KEY = "sk-cp-test-admin-0123456789abcdefghij"

SCRIPTED = """
[server]
max_body_bytes = 4000000
cors_origins = ["https://app.example"]

[[models]]
id = "echo"
backend = "scripted"
aliases = ["gpt-4", "gpt-3.5-turbo"]

[[models]]
id = "poem"
backend = "scripted"
reply = ["春", "天", " came", ", ", "and \\u0000", "🌱", "!\\n"]

[[models]]
id = "library/poem:1"
backend = "scripted"
reply = ["A name with a slash."]

[[models]]
id = "slow"
backend = "scripted"
reply = ["tick ", "tock ", "tick ", "tock ", "tick ", "tock ", "tick ", "tock "]
delay_ms = 100

[[models]]
id = "busy"
backend = "scripted"
fail_status = 429

[[models]]
id = "broken"
backend = "scripted"
fail_status = 500

[[models]]
id = "down"
backend = "scripted"
fail_status = 503
"""
"""One scripted model for every kind of answer a client may meet."""


class NewKey(NamedTuple):
    id: str
    key: str


@dataclass(frozen=True)
class Server:
    """A running server: `url` without a path, e.g. `http://127.0.0.1:40123`."""

    url: str
    key: str
    admin_key: str
    process: subprocess.Popen[bytes]
    log: Path
    home: Path

    def cli(self, *arguments: str) -> str:
        """What `chatport ARGUMENTS` prints, run beside the server, on its database."""
        command = [sys.executable, "-m", "chatport", *arguments]
        config = self.home / "chatport.toml"
        environment = environment_for(self.home) | ({"CHATPORT_CONFIG": str(config)} if config.exists() else {})
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def new_key(self, *options: str) -> NewKey:
        """A key made beside the running server; returns once the server knows it (it notices within a second)."""
        made = json.loads(self.cli("keys", "create", "--json", *options))
        headers = {"authorization": f"Bearer {made['key']}"}
        deadline = time.monotonic() + NOTICE_SECONDS
        while httpx2.get(f"{self.url}/v1/models", headers=headers, trust_env=False).status_code == 401:
            assert time.monotonic() < deadline, "the server did not notice a new key"
            time.sleep(0.05)
        return NewKey(made["id"], made["key"])


def environment_for(home: Path) -> dict[str, str]:
    """This process's environment without what would change the program, above all no proxy between it and loopback."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CHATPORT_", "OPENAI_", "HF_", "MODELSCOPE_")) and not name.lower().endswith("_proxy")
    }
    return kept | {
        "CHATPORT_HOME": str(home),
        "CHATPORT_BOOTSTRAP_KEY": KEY,
        "CHATPORT_BOOTSTRAP_ADMIN_KEY": ADMIN_KEY,
        "PYTHONUNBUFFERED": "1",
    }


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def serving(
    home: Path, config: str | None = None, *arguments: str, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Runs `chatport serve ARGUMENTS` until the block is left; `config` is TOML, None the installation's defaults."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "chatport", "serve", "--port", str(port), *arguments]
    if config is not None:
        (home / "chatport.toml").write_text(config, encoding="utf-8")
        command += ["--config", str(home / "chatport.toml")]
    log = home / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment_for(home) | dict(environ or {}), stdout=output, stderr=subprocess.STDOUT
        )
    server = Server(f"http://127.0.0.1:{port}", KEY, ADMIN_KEY, process, log, home)
    try:
        wait_until_ready(server)
        yield server
    finally:
        stop(server)


def wait_until_ready(server: Server) -> None:
    """Polls /readyz. Raises with the log when the program ends or takes longer than START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            if httpx2.get(f"{server.url}/readyz", timeout=2, trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"the server is not ready; it said:\n{server.log.read_text(errors='replace')}")


def stop(server: Server) -> None:
    """SIGTERM; whoever does not go in time, or not with 0, fails the test that is running."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    try:
        code = server.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
        raise AssertionError(f"SIGTERM did not stop the server:\n{server.log.read_text(errors='replace')}") from None
    assert code == 0, f"the server ended with {code}:\n{server.log.read_text(errors='replace')}"


def behind(server: Server, names: Mapping[str, tuple[str, ...]], settings: str = "") -> str:
    """The configuration of a Chatport whose models, with their aliases, are those of another: the chain."""
    models = [
        f"""
[[models]]
id = "{name}"
aliases = {json.dumps(aliases)}
attempts = 1
[[models.targets]]
backend = "openai"
base_url = "{server.url}/v1"
api_key = "{server.key}"
"""
        for name, aliases in names.items()
    ]
    return settings + "".join(models)


@pytest.fixture(scope="session", params=["direct", "behind another"])
def scripted_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models that say what they are told, at once: one server per test process, alone and as the upstream of another.

    Whatever a client may observe must be the same in the chain: it is the backend for upstreams that is tested so.
    """
    with serving(tmp_path_factory.mktemp("scripted"), SCRIPTED) as server:
        if request.param == "direct":
            yield server
            return
        entries = tomllib.loads(SCRIPTED)["models"]
        names = {entry["id"]: tuple(entry.get("aliases", ())) for entry in entries}
        config = behind(server, names, SCRIPTED.partition("[[models]]")[0])
        with serving(tmp_path_factory.mktemp("front"), config) as front:
            yield front


MODEL_SERVERS = ["direct", "behind another"] if "CHATPORT_TEST_CHAIN" in os.environ else ["direct"]


@pytest.fixture(scope="session", params=MODEL_SERVERS)
def model_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path
) -> Iterator[Server]:
    """A default installation, without any configuration: the embedded model answers to `gpt-4`.

    With CHATPORT_TEST_CHAIN set, once more behind another Chatport: it takes twice as long.
    """
    home = tmp_path_factory.mktemp("model")
    (home / "models").mkdir()
    (home / "models" / "smollm2-135m.gguf").symlink_to(smollm2_path)
    with serving(home) as server:
        if request.param == "direct":
            yield server
            return
        config = behind(server, {"smollm2-135m": ("gpt-4", "gpt-3.5-turbo")})
        with serving(tmp_path_factory.mktemp("front"), config) as front:
            yield front
