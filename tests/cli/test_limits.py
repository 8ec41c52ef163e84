"""`chatport limits`, on a database of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chatport.cli.app import app

runner = CliRunner()

CONFIG = """
[[models]]
id = "echo"
backend = "scripted"
aliases = ["gpt-4"]

[[limits]]
scope = "key:*"
rpm = 60
mode = "report"
"""
NONE = dict.fromkeys(("rpm", "rph", "rpd", "tpm", "tph", "tpd", "concurrency"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CHATPORT_CONFIG", raising=False)
    monkeypatch.setenv("CHATPORT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def configured(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = home / "chatport.toml"
    file.write_text(CONFIG)
    monkeypatch.setenv("CHATPORT_CONFIG", str(file))
    return file


def run(*arguments: str) -> str:
    result = runner.invoke(app, ["limits", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("list", "--json"))
    return found


def new_key() -> dict[str, str]:
    found: dict[str, str] = json.loads(runner.invoke(app, ["keys", "create", "--json"]).stdout)
    return found


def test_set_replaces_what_the_scope_had_and_rm_lifts_it() -> None:
    assert listed() == []
    assert "There are no limits" in run("list")
    everything = (
        "--rpm",
        "1",
        "--rph",
        "2",
        "--rpd",
        "3",
        "--tpm",
        "4",
        "--tph",
        "5",
        "--tpd",
        "6",
        "--concurrency",
        "7",
    )
    first = json.loads(run("set", "key:*", *everything, "--mode", "report", "--json"))
    changed_at = first.pop("changed_at")
    assert changed_at > 1_700_000_000
    amounts = dict(zip(NONE, range(1, 8), strict=True))
    assert first == {"scope": "key:*", **amounts, "mode": "report", "source": "database"}
    assert run("set", "key:*", "--tpd", "10") == "key:*: tpd 10\n"
    (entry,) = listed()
    assert entry == {
        "scope": "key:*",
        **NONE,
        "tpd": 10,
        "mode": "enforce",
        "source": "database",
        "changed_at": entry["changed_at"],
    }
    assert json.loads(run("rm", "key:*", "--json")) == entry
    assert listed() == []
    run("set", "model:*", "--rpm", "1", "--mode", "report")
    assert run("rm", "model:*") == "Lifted: model:*, rpm 1 (only reports)\n"


@pytest.mark.parametrize("kind", ["key", "user"])
@pytest.mark.parametrize("by", ["id", "prefix"])
def test_a_key_is_named_by_its_id_or_its_beginning(kind: str, by: str) -> None:
    key = new_key()
    run("set", f"{kind}:{key[by]}", "--rpm", "5")
    assert [entry["scope"] for entry in listed()] == [f"{kind}:{key['id']}"]
    run("rm", f"{kind}:{key[by]}")
    assert listed() == []


def test_an_owner_without_a_key_gets_a_note() -> None:
    result = runner.invoke(app, ["limits", "set", "owner:alice", "--rpm", "5"])
    assert result.stderr == "note: no key has the owner alice yet.\n"
    runner.invoke(app, ["keys", "create", "--owner", "alice"])
    assert runner.invoke(app, ["limits", "set", "owner:alice", "--rpm", "5"]).stderr == ""


def test_a_models_other_name_stands_for_the_model(configured: Path) -> None:
    result = runner.invoke(app, ["limits", "set", "model:gpt-4", "--rpm", "5"])
    assert result.stderr == "note: gpt-4 is a name of echo; the limit is that model's, by whatever name.\n"
    assert [entry["scope"] for entry in listed()] == ["key:*", "model:echo"]
    result = runner.invoke(app, ["limits", "set", "model:nope", "--rpm", "5"])
    assert result.stderr == "note: no configured model has the name nope; configured: echo, gpt-4.\n"
    assert "model:nope" in [entry["scope"] for entry in listed()]


def test_those_of_the_file_are_listed_and_stay_there(configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    run("set", "key:*", "--rpm", "5")
    entries = [(entry["scope"], entry["rpm"], entry["mode"], entry["source"]) for entry in listed()]
    assert entries == [("key:*", 60, "report", "file"), ("key:*", 5, "enforce", "database")]
    shown = " ".join(run("list").split())
    assert "key:* rpm 60 (only reports) file key:* rpm 5 database" in shown
    run("rm", "key:*")
    result = runner.invoke(app, ["limits", "rm", "key:*"])
    assert result.exit_code == 1
    assert f"The limit of key:* stands in the configuration file, {configured}; remove it there." in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["set", "team:x", "--rpm", "1"], 1, "'team' is no kind of limit. Write key:ID, owner:NAME, model:ID, or"),
        (["set", "key:", "--rpm", "1"], 1, "'key:' names nobody. Write key:ID"),
        (["set", "alice", "--rpm", "1"], 1, "'alice' names nobody. Write key:ID"),
        (["set", "key:nobody", "--rpm", "1"], 1, 'No key with the id or prefix "nobody".'),
        (["set", "owner:" + "x" * 101, "--rpm", "1"], 1, "An owner's name must have 1 to 100 printable characters"),
        (["set", "key:*"], 2, "Give at least one limit, such as --rpm 60. Limits are lifted with: chatport limits rm"),
        (["set", "key:*", "--rpm", "0"], 2, "'0' is not allowed; write a whole number from 1 to"),
        (["set", "key:*", "--tpd", "1000000000001"], 2, "write a whole number from 1 to 1000000000000."),
        (["set", "key:*", "--tpd", "1e6"], 2, "'1e6' is not allowed; write a whole number"),
        (["set", "key:*", "--rpm", "1", "--mode", "off"], 2, "'off' is not one of 'enforce', 'report'"),
        (["rm", "owner:alice"], 1, "owner:alice has no limit. Those that there are: chatport limits list"),
        (["list", "--config", "gone.toml"], 3, "gone.toml: can't be read"),
    ],
)
def test_what_can_not_be_done_ends_with_a_sentence_and_a_code(arguments: list[str], code: int, sentence: str) -> None:
    result = runner.invoke(app, ["limits", *arguments])
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in " ".join(result.stderr.replace("│", " ").split())
