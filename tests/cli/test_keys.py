"""`chatport keys`, on a database of its own."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chatport.cli.app import app
from chatport.cli.keys import opened_keys
from chatport.config import Config

runner = CliRunner()
ENTRY = {"id", "name", "prefix", "admin", "models", "owner", "created_at", "expires_at", "revoked_at", "state"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CHATPORT_CONFIG", raising=False)
    monkeypatch.setenv("CHATPORT_HOME", str(tmp_path))
    return tmp_path


def run(*arguments: str) -> str:
    result = runner.invoke(app, ["keys", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_create_prints_the_key_alone_on_stdout(home: Path) -> None:
    result = runner.invoke(app, ["keys", "create", "--name", "laptop"])
    key = result.stdout.strip()
    assert key.startswith("sk-cp-")
    assert "shown once" in result.stderr
    assert key.encode() not in b"".join(file.read_bytes() for file in home.iterdir() if file.is_file())


def test_create_as_json() -> None:
    new = json.loads(run("create", "--name", "trial", "--models", "gpt-4, gpt-3.5-turbo", "--json"))
    assert new.keys() == ENTRY | {"key", "rpm", "tpm", "concurrency", "budget"}
    assert {new[name] for name in ("owner", "expires_at", "rpm", "tpm", "concurrency")} == {None}
    assert (new["name"], new["admin"], new["models"]) == ("trial", False, ["gpt-3.5-turbo", "gpt-4"])
    assert new["key"].startswith(new["prefix"])
    assert json.loads(run("create", "--admin", "--json"))["admin"] is True


def test_create_with_owner_limits_and_an_end() -> None:
    options = ("--owner", "alice", "--rpm", "60", "--tpm", "100000", "--concurrency", "4", "--expires", "30d")
    new = json.loads(run("create", "--json", *options))
    assert (new["owner"], new["rpm"], new["tpm"], new["concurrency"]) == ("alice", 60, 100_000, 4)
    assert new["expires_at"] == pytest.approx(time.time() + 30 * 86_400, abs=60)
    assert json.loads(run("list", "--json"))[0]["owner"] == "alice"
    (limit,) = json.loads(runner.invoke(app, ["limits", "list", "--json"]).stdout)
    assert (limit["scope"], limit["rpm"], limit["tpm"], limit["rpd"]) == (f"key:{new['id']}", 60, 100_000, None)


def test_list_shows_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    run("create", "--owner", "Büro 7")
    assert "Büro 7" in run("list")


def test_list_shows_every_key_but_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run("list") == "There are no keys yet. Make one with: chatport keys create\n"
    assert json.loads(run("list", "--json")) == []
    new = json.loads(run("create", "--name", "大 [bold]", "--json"))
    (entry,) = json.loads(run("list", "--json"))
    assert entry == {name: new[name] for name in ENTRY}
    shown = run("list")
    for words in (new["id"], f"{new['prefix']}…", "大 [bold]", "all", "open"):
        assert words in shown
    assert new["key"] not in shown


def test_ids_stay_whole_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    new = json.loads(run("create", "--admin", "--name", "a long name for a key", "--json"))
    assert f"{new['id']}  {new['prefix']}…" in run("list")


@pytest.mark.parametrize("by", ["id", "prefix"])
def test_revoke_ends_a_key_and_keeps_it_listed(by: str) -> None:
    new = json.loads(run("create", "--json"))
    revoked = json.loads(run("revoke", new[by], "--json"))
    assert revoked.keys() == ENTRY
    assert revoked["revoked_at"] >= new["created_at"]
    assert (new["state"], revoked["state"]) == ("open", "revoked")
    assert json.loads(run("list", "--json")) == [revoked]
    assert "revoked" in run("list")
    assert run("revoke", new["id"]).startswith(f"Revoked {new['id']} (cli, ")
    assert json.loads(run("list", "--json")) == [revoked]


def test_an_expired_key_says_so(home: Path) -> None:
    async def make() -> None:
        async with opened_keys(Config(home=home)) as keys:
            await keys.create(name="trial", now=1000, expires_at=2000)
            await keys.create(name="longer", now=1000, expires_at=time.time() + 3600)

    asyncio.run(make())
    states = {entry["name"]: entry["state"] for entry in json.loads(run("list", "--json"))}
    assert states == {"trial": "expired", "longer": "open"}
    assert "expired" in run("list")


def test_a_model_that_nobody_configured_gets_a_note() -> None:
    result = runner.invoke(app, ["keys", "create", "--models", "gpt-4,gpt-5", "--json"])
    assert result.exit_code == 0
    assert "no configured model has the name gpt-5; configured: gpt-3.5-turbo, gpt-4, smollm2-135m." in result.stderr
    assert json.loads(result.stdout)["models"] == ["gpt-4", "gpt-5"]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["revoke", "key_nobody"], 1, 'No key with the id or prefix "key_nobody".'),
        (["create", "--name", ""], 1, "A key's name must have 1 to 100 printable characters"),
        (["create", "--owner", "*"], 1, 'An owner\'s name must have 1 to 100 printable characters; got "*".'),
        (["create", "--rpm", "0"], 2, "'0' is not allowed; write a whole number from 1 to"),
        (["create", "--expires", "soon"], 2, "'soon' is no span of time; write 90s, 15m, 12h, 30d or 8w"),
        (["create", "--models", " , "], 2, "Give at least one model, or leave --models out."),
        (["list", "--config", "gone.toml"], 3, "gone.toml: can't be read"),
        (["revoke"], 2, "Missing argument"),
    ],
)
def test_what_can_not_be_done_ends_with_a_sentence_and_a_code(arguments: list[str], code: int, sentence: str) -> None:
    result = runner.invoke(app, ["keys", *arguments])
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in " ".join(result.stderr.replace("│", " ").split())


def test_a_database_that_can_not_be_opened(home: Path) -> None:
    (home / "chatport.db").mkdir()
    result = runner.invoke(app, ["keys", "list"])
    assert result.exit_code == 6
    assert result.stderr.startswith("error: ")


def test_the_configured_database_is_used(home: Path) -> None:
    file = home / "chatport.toml"
    file.write_text(f'[store]\nurl = "sqlite:///{home}/other.db"\n')
    run("create", "--config", str(file))
    assert (home / "other.db").exists()
    assert not (home / "chatport.db").exists()
