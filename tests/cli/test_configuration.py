"""`chatport config check`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chatport.cli.app import app
from support.gguf_files import HEAD, gguf

runner = CliRunner()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATPORT_HOME", str(tmp_path))
    monkeypatch.setattr("chatport.backends.llama.installed.packaged_file", lambda model: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    file = tmp_path / "chatport.toml"
    monkeypatch.setenv("CHATPORT_CONFIG", str(file))
    return file


MODELS = """
[server]
port = 9000
[[models]]
id = "echo"
backend = "scripted"
aliases = ["gpt-4"]
[[models]]
id = "small"
backend = "llama"
path = "smollm2-135m"
"""


def put_weights(file: Path, content: bytes = gguf(HEAD)) -> Path:
    """Into the home's folder of models, under the name that MODELS has."""
    (file.parent / "models").mkdir()
    weights = file.parent / "models" / "smollm2-135m.gguf"
    weights.write_bytes(content)
    return weights


def test_a_good_configuration_and_what_it_comes_to(file: Path) -> None:
    file.write_text(MODELS)
    weights = put_weights(file)
    result = runner.invoke(app, ["config", "check"])
    assert result.exit_code == 0
    assert f"{file} is good." in result.stdout
    assert "127.0.0.1 port 9000" in result.stdout
    assert "echo, gpt-4: scripted" in result.stdout
    assert f"small: {weights}\n" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("path", "content", "sentence"),
    [
        (
            "smollm2-135m",
            None,
            'error: small: The model "smollm2-135m" is not here yet.',
        ),
        ("/nope.gguf", None, "error: small: There is no model file /nope.gguf."),
        ("smollm2-135m", b"<html>", "is not a GGUF file"),
    ],
)
def test_a_model_that_could_not_be_served(file: Path, path: str, content: bytes | None, sentence: str) -> None:
    file.write_text(MODELS.replace("smollm2-135m", path))
    if content is not None:
        put_weights(file, content)
    result = runner.invoke(app, ["config", "check"])
    assert result.exit_code == 5
    assert sentence in result.stderr
    assert "is good" not in result.stdout
    as_json = runner.invoke(app, ["config", "check", "--json"])
    report = json.loads(as_json.stdout)
    assert (as_json.exit_code, report["ok"], report["faults"]) == (5, False, [])
    assert [model["problem"] is None for model in report["models"]] == [True, False]
    assert report["server"]["port"] == 9000


def test_without_the_engine_no_model_can_be_served(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(MODELS)
    put_weights(file)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = runner.invoke(app, ["config", "check"])
    assert result.exit_code == 5
    assert "-m pip install 'chatport[embedded]'" in result.stderr


def test_a_model_that_serve_would_fetch_is_no_problem(file: Path) -> None:
    file.write_text("[server]\nport = 9000\n")
    result = runner.invoke(app, ["config", "check"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "llama, to be fetched\n" in result.stdout
    assert json.loads(runner.invoke(app, ["config", "check", "--json"]).stdout)["ok"] is True


def test_as_json(file: Path) -> None:
    file.write_text(MODELS)
    weights = put_weights(file)
    report = json.loads(runner.invoke(app, ["config", "check", "--json"]).stdout)
    assert (report["ok"], report["faults"]) == (True, [])
    assert (report["source"], report["home"]) == (str(file), str(file.parent))
    assert report["server"]["port"] == 9000
    good = {"problem": None, "targets": None}
    assert report["models"] == [
        {"id": "echo", "backend": "scripted", "aliases": ["gpt-4"], "file": None, **good},
        {"id": "small", "backend": "llama", "aliases": [], "file": str(weights), **good},
    ]


def test_faults(file: Path) -> None:
    file.write_text("[server]\nport = -1\nhots = 1\n")
    result = runner.invoke(app, ["config", "check"])
    assert (result.exit_code, result.stdout) == (3, "")
    assert f"{file}:2: server.port: -1 is not allowed" in result.stderr
    assert f'{file}:3: server.hots: there is no such key; did you mean "host"?' in result.stderr


def test_faults_as_json(file: Path) -> None:
    file.write_text("[server]\nhots = 1\n")
    result = runner.invoke(app, ["config", "check", "--json"])
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    assert (report["ok"], report["server"], report["models"]) == (False, None, None)
    assert report["faults"] == [
        {"file": str(file), "line": 2, "key": "server.hots", "sentence": 'there is no such key; did you mean "host"?'}
    ]


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an upstream that lists one model, for one key."""

    class Listing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = self.headers["authorization"] == "Bearer sk-good"
            body = b'{"data": [{"id": "there"}]}' if good else b"{}"
            self.send_response(200 if good else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def with_target(url: str, key: str, model: str) -> str:
    return f'[[models.targets]]\nbackend = "openai"\nbase_url = "{url}"\napi_key = "{key}"\nmodel = "{model}"\n'


def test_each_upstream_is_asked(file: Path, upstream: str) -> None:
    good, wrong_key = with_target(upstream, "sk-good", "there"), with_target(upstream, "sk-bad", "there")
    file.write_text(f'[[models]]\nid = "m"\n{good}{wrong_key}')
    result = runner.invoke(app, ["config", "check", "--probe"])
    assert result.exit_code == 0
    assert "target    upstream: answers" in result.stdout
    assert "target    upstream-2: The server can't use the upstream" in result.stdout
    assert "sk-" not in result.output


def test_a_model_that_no_upstream_has_is_a_problem(file: Path, upstream: str) -> None:
    lost = with_target(upstream, "sk-good", "gone")
    file.write_text(f'[[models]]\nid = "m"\n{lost}[[models]]\nid = "e"\nbackend = "scripted"')
    assert runner.invoke(app, ["config", "check"]).exit_code == 0
    result = runner.invoke(app, ["config", "check", "--probe", "--json"])
    assert result.exit_code == 5
    told = json.loads(result.stdout)
    assert told["ok"] is False
    problem = "It has no model gone, but there."
    assert told["models"][0]["targets"] == [{"name": "upstream", "problem": problem}]
    assert told["models"][0]["problem"] == f"upstream: {problem}"
    assert told["models"][1]["targets"] is None
