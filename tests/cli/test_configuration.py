"""`chatport config check`."""

from __future__ import annotations

import json
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
    assert report["models"] == [
        {"id": "echo", "backend": "scripted", "aliases": ["gpt-4"], "file": None, "problem": None},
        {"id": "small", "backend": "llama", "aliases": [], "file": str(weights), "problem": None},
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
