"""`chatport config check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chatport.cli.app import app

runner = CliRunner()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATPORT_HOME", str(tmp_path))
    monkeypatch.setattr("chatport.backends.llama.weights._packaged", lambda model: None)
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


def test_a_good_configuration_and_what_it_comes_to(file: Path) -> None:
    file.write_text(MODELS)
    result = runner.invoke(app, ["config", "check"])
    assert result.exit_code == 0
    assert f"{file} is good." in result.stdout
    assert "127.0.0.1 port 9000" in result.stdout
    assert "echo, gpt-4: scripted" in result.stdout
    assert 'small: The model "smollm2-135m" is not here yet.' in result.stdout


def test_as_json(file: Path) -> None:
    file.write_text(MODELS)
    (file.parent / "models").mkdir()
    weights = file.parent / "models" / "smollm2-135m.gguf"
    weights.write_bytes(b"GGUF")
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
