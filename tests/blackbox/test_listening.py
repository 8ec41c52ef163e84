"""Where the server listens, HTTPS and a Unix socket, and whom it takes a request to come from."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from support.serving import KEY, START_SECONDS, STOP_SECONDS, environment_for, free_port

ECHO = '[[models]]\nid = "e"\nbackend = "scripted"\n'
BODY = {"model": "e", "messages": [{"role": "user", "content": "春"}]}


class Program:
    """`chatport serve`, whatever it listens on."""

    def __init__(self, home: Path, server: str) -> None:
        (home / "chatport.toml").write_text(f"[server]\n{server}\n{ECHO}", encoding="utf-8")
        self.log = home / "serve.log"
        command = [sys.executable, "-m", "chatport", "serve", "--config", str(home / "chatport.toml")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment_for(home), stdout=log, stderr=subprocess.STDOUT)

    def ask(self, client: httpx2.Client, url: str) -> httpx2.Response:
        """The reply to a create, once the server is there."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return client.post(f"{url}/v1/chat/completions", json=BODY, headers={"authorization": f"Bearer {KEY}"})
            except httpx2.TransportError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)

    def clients(self) -> list[str | None]:
        """Whom its log, in JSON, names as the client of each request."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line["client"] for line in lines if line["logger"] == "chatport.access"]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP_SECONDS) == 0, self.log.read_text()


def test_https(tmp_path: Path, certificate: Path) -> None:
    port = free_port()
    program = Program(tmp_path, f'port = {port}\ntls_cert = "{certificate}"')
    with httpx2.Client(verify=ssl.create_default_context(cafile=certificate), trust_env=False) as client:
        for _ in range(2):
            reply = program.ask(client, f"https://127.0.0.1:{port}")
            assert reply.json()["choices"][0]["message"]["content"] == "春"
    assert f"https://127.0.0.1:{port}/v1" in program.log.read_text()
    program.stop()


# The client leaves a socket to the collector when nobody listens yet.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for _ in range(2):
        program = Program(tmp_path, f'uds = "{path}"')
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as client:
            assert program.ask(client, "http://localhost").json()["choices"][0]["message"]["content"] == "春"
        assert str(path) in program.log.read_text()
        program.process.kill()  # it leaves its socket behind, which the next one takes
        program.process.wait()
        assert path.exists()
    program = Program(tmp_path, 'uds = "s"')
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as client:
        program.ask(client, "http://localhost")
    second = Program(tmp_path, 'uds = "s"')
    assert second.process.wait(STOP_SECONDS) == 4
    assert "another program listens there" in second.log.read_text()
    program.stop()
    assert not path.exists()


@pytest.mark.parametrize(
    ("trusted", "client"), [([], "127.0.0.1"), (["10.0.0.0/8", "unix"], "127.0.0.1"), (["127.0.0.1"], "203.0.113.7")]
)
def test_the_log_names_the_client_that_a_trusted_proxy_tells(tmp_path: Path, trusted: list[str], client: str) -> None:
    port = free_port()
    program = Program(tmp_path, f'port = {port}\nlog_format = "json"\ntrusted_proxies = {json.dumps(trusted)}')
    with httpx2.Client(headers={"x-forwarded-for": "198.51.100.1, 203.0.113.7"}, trust_env=False) as through:
        assert program.ask(through, f"http://127.0.0.1:{port}").status_code == 200
    program.stop()
    assert program.clients() == [client]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("trusted", "client"), [(["127.0.0.1"], "unix"), (["unix"], "2a00::7")])
def test_a_proxy_on_a_unix_socket_may_be_trusted(tmp_path: Path, trusted: list[str], client: str) -> None:
    program = Program(tmp_path, f'uds = "s"\nlog_format = "json"\ntrusted_proxies = {json.dumps(trusted)}')
    transport = httpx2.HTTPTransport(uds=str(tmp_path / "s"))
    with httpx2.Client(transport=transport, headers={"forwarded": 'for="[2a00::7]:1"'}) as through:
        assert program.ask(through, "http://localhost").status_code == 200
    program.stop()
    assert program.clients() == [client]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ('tls_cert = "gone.pem"', "server.tls_cert: can't be used, with or without a tls_key: No such file"),
        ('tls_cert = "chatport.toml"', "server.tls_cert: can't be used"),
        ('tls_key = "x.pem"', "server.tls_key: is of no use without a tls_cert"),
    ],
)
def test_a_certificate_that_is_none(tmp_path: Path, settings: str, sentence: str) -> None:
    program = Program(tmp_path, settings)
    assert program.process.wait(STOP_SECONDS) == 3
    assert sentence in program.log.read_text()
