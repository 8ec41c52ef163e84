"""The commands of the account, on a database of its own: what is set, what was used, whether it is right."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chatport.cli.app import app
from chatport.store import Store, open_store
from chatport.store.account import AttemptRow, Claim
from support.postings import begin, post

runner = CliRunner()

CONFIG = """
[[models]]
id = "echo"
backend = "scripted"
aliases = ["gpt-4"]
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "chatport.toml"
    file.write_text(CONFIG)
    monkeypatch.setenv("CHATPORT_CONFIG", str(file))
    monkeypatch.setenv("CHATPORT_HOME", str(tmp_path))
    return tmp_path


def run(*arguments: str) -> str:
    result = runner.invoke(app, [*arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str, code: int = 1) -> Result:
    result = runner.invoke(app, [*arguments])
    assert result.exit_code == code, result.output
    return result


def told(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def on_store(home: Path, work: Callable[[Store], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        async with open_store(f"sqlite:///{home}/chatport.db") as store:
            return await work(store)

    return asyncio.run(go())


@pytest.fixture
def key() -> str:
    found: str = told("keys", "create", "--name", "laptop", "--owner", "alice")["id"]
    return found


# --- What is set -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "unit", "nano", "period"),
    [
        ("5usd/month", "nano", 5 * 10**9, "month"),
        ("100000tok", "token", 100_000, "once"),
        ("0.25usd", "nano", 250_000_000, "once"),
    ],
)
def test_a_budget_is_made_listed_changed_and_ended(key: str, amount: str, unit: str, nano: int, period: str) -> None:
    made = told("budgets", "create", f"key:{key}", amount, "--zone", "Asia/Shanghai")
    assert (made["unit"], made["amount"], made["period"], made["zone"]) == (unit, nano, period, "Asia/Shanghai")
    assert (made["remaining"], made["posted"], made["held"], made["mode"]) == (nano, 0, 0, "enforce")
    [listed] = told("budgets", "list")
    assert listed == made
    assert made["id"] in run("budgets", "list")
    changed = told("budgets", "set", made["id"], "--mode", "report")
    assert changed["mode"] == "report"
    run("budgets", "end", made["id"])
    assert told("budgets", "list") == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("key:nobody", "5usd"), "No key with the id"),
        (("nobody", "5usd"), "is no scope"),
        (("user:*", "5usd"), "only end users can have a budget each"),
        (("key:*", "5usd"), "only end users can have a budget each"),
    ],
)
def test_a_budget_of_nobody_is_refused_with_a_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused("budgets", "create", *arguments).output


def test_a_budget_for_each_end_user(home: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    made = told("budgets", "create", f"user:{key}/*", "1000tok/day")
    assert (made["scope"], made["end_user"]) == (f"user:{key}/*", "*")
    assert "1000 tokens per day each" in run("budgets", "list")
    assert told("budgets", "list", "--of", made["id"]) == []
    each = Claim(f"{made['id']}.1", made["began_at"], 10, 1, 1, "token", parent=made["id"], end_user="alice")
    on_store(home, lambda store: begin(store, claims=(each,)))
    [alice] = told("budgets", "list", "--of", made["id"])
    assert (alice["scope"], alice["held"], alice["remaining"]) == (f"user:{key}/alice", 20, 980)
    assert told("budgets", "list") == [made]
    assert told("grants", "add", alice["id"], "500tok", "--note", "goodwill")["limit"] == 1500
    for change in (("set", alice["id"], "--amount", "5tok/day"), ("end", alice["id"])):
        assert f"chatport budgets create user:{key}/alice" in refused("budgets", *change).output.replace("\n", " ")
    told("budgets", "set", made["id"], "--amount", "2000tok/day")
    [alice] = told("budgets", "list", "--of", made["id"])
    assert alice["limit"] == 2500
    assert "is no budget for each end user" in refused("budgets", "list", "--of", alice["id"]).output
    assert told("ledger", "verify")["differences"] == []


@pytest.mark.parametrize("amount", ["5", "-5usd/month", "five", "5usd/fortnight"])
def test_an_amount_that_can_t_be_understood_teaches(key: str, amount: str) -> None:
    refused("budgets", "create", f"key:{key}", "--", amount, code=2)


def test_a_grant_moves_the_limit_and_a_correction_what_is_posted(key: str) -> None:
    made = told("budgets", "create", f"key:{key}", "1000tok")
    granted = told("grants", "add", made["id"], "500tok", "--note", "goodwill")
    assert (granted["limit"], granted["granted"], granted["remaining"]) == (1500, 500, 1500)
    corrected = told("corrections", "add", made["id"], "-200tok", "--note", "outage")
    assert (corrected["posted"], corrected["remaining"]) == (-200, 1700)
    assert "give the amount in it" in refused("grants", "add", made["id"], "5usd", "--note", "x").output
    actions = [row["action"] for row in told("audit")]
    assert {"budget.create", "grant.add", "correction.add"} <= set(actions)
    assert told("ledger", "verify")["differences"] == []


def test_an_owner_s_factor(key: str) -> None:
    run("owners", "set", "alice", "--factor", "1.25")
    [owner] = told("owners", "list")
    assert (owner["name"], owner["factor_ppm"]) == ("alice", 1_250_000)


# --- What was used ---------------------------------------------------------------------------------------------------


def fill(home: Path, key: str) -> str:
    """Two posted requests of a key, one with a failed attempt, and one that runs; the id of its budget."""
    budget: str = told("budgets", "create", f"key:{key}", "1usd")["id"]
    now = int(time.time() * 1000)
    failed = AttemptRow(
        request_id="req_a", number=1, target="first", model="m", began_ms=1, ended_ms=31, outcome="503 down"
    )

    async def work(store: Store) -> None:
        common: dict[str, Any] = {"key_id": key, "owner": "alice", "created_ms": now}
        await post(store, "req_a", budget=budget, attempts=(failed,), **common)
        await post(store, "req_b", budget=budget, end_user="ann", model="echo", ending="cut", **common)
        await begin(store, "req_c", budget=budget, key_id=key, created_ms=now)

    on_store(home, work)
    return budget


def test_usage_in_every_form(home: Path, key: str) -> None:
    fill(home, key)
    [by_key] = told("usage")
    assert (by_key["group"], by_key["name"], by_key["requests"], by_key["charge_nano"]) == (key, "laptop", 2, 140)
    assert [one["group"] for one in told("usage", "--by", "owner", "--since", "7d")] == ["alice"]
    assert {one["group"] for one in told("usage", "--by", "model")} == {"m", "echo"}
    assert {one["group"] for one in told("usage", "--by", "user")} == {None, "ann"}
    [row] = csv.DictReader(io.StringIO(run("usage", "--by", "day", "--csv")))
    assert (row["requests"], row["prompt_tokens"], row["charge_nano"]) == ("2", "20", "140")
    assert "charge" in run("usage")
    assert "Nothing was used" in run("usage", "--since", "2090-01-01")
    assert "is no group" in refused("usage", "--by", "planet", code=2).output
    assert "is no time" in refused("usage", "--since", "yesterday", code=2).output


LINE = {
    "request_id", "key_id", "model", "state", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens",
    "held_nano", "cost_nano", "charge_nano", "price_version", "counted_by", "ending", "created_at", "settled_at",
}  # fmt: skip


def test_the_ledger_line_by_line(home: Path, key: str) -> None:
    fill(home, key)
    lines = [json.loads(line) for line in run("ledger", "export").splitlines()]
    assert [(line["request_id"], line["state"], line["ending"]) for line in lines] == [
        ("req_a", "posted", "complete"),
        ("req_b", "posted", "cut"),
        ("req_c", "held", None),
    ]
    assert all(set(line) == LINE for line in lines)
    assert lines[0]["charge_nano"] == 70
    assert run("ledger", "export", "--since", "2090-01-01") == ""


def test_the_story_of_a_request(home: Path, key: str) -> None:
    budget = fill(home, key)
    story = told("explain", "req_a")
    assert (story["key_name"], story["charge_nano"], story["ending"]) == ("laptop", 70, "complete")
    assert [one["budget_id"] for one in story["budgets"]] == [budget]
    assert [one["outcome"] for one in story["failed_attempts"]] == ["503 down"]
    words = run("explain", "req_a")
    assert "attempt 1 at first failed after 30 ms: 503 down" in words
    assert f"budget     {budget} (key:{key})" in words
    assert told("explain", "req_c")["state"] == "held"
    assert "No request with the id" in refused("explain", "req_nobody").output


FORGED = {
    "a balance": ("UPDATE balances SET posted = posted + 1", "posted"),
    "what is held": ("UPDATE balances SET held = held - 1", "held"),
    "a grant": ("UPDATE balances SET granted = 5", "granted"),
    "an entry": ("UPDATE entries SET amount = amount - 1", "entry amount"),
    "an entry that is gone": ("DELETE FROM entries", "posted"),
}


@pytest.mark.parametrize("name", FORGED)
def test_verify_finds_what_was_forged(home: Path, key: str, name: str) -> None:
    fill(home, key)
    assert "The account is right." in run("ledger", "verify")
    statement, what = FORGED[name]
    with sqlite3.connect(home / "chatport.db") as database:
        database.execute(statement)
    result = refused("ledger", "verify")
    assert f"DIFFERS: {what}" in result.output
    assert "The account is NOT right." in result.output
    assert json.loads(refused("ledger", "verify", "--json").stdout)["differences"]


def test_what_is_over_its_hold_or_its_limit_is_listed_and_no_difference(home: Path, key: str) -> None:
    """In the configured currency, where it is money."""
    (home / "chatport.toml").write_text(CONFIG + '[ledger]\ncurrency = "EUR"\ncurrency_rate = 0.5\n')
    money, tokens = (told("budgets", "create", f"key:{key}", each)["id"] for each in ("1usd", "3tok"))
    on_store(home, lambda store: post(store, "req_a", budget=money, over_hold=True, key_id=key, held_nano=100))
    run("budgets", "set", money, "--amount", "0.00000005usd")
    run("corrections", "add", tokens, "5tok", "--note", "moved here")
    words = run("ledger", "verify")
    assert "over its hold: req_a (m): 0.00000005 EUR held, 0.000000035 EUR charged." in words
    assert f"over its limit: {money}: 0.000000035 EUR posted and 0.00 EUR held of 0.000000025 EUR." in words
    assert f"over its limit: {tokens}: 5 tokens posted and 0 tokens held of 3 tokens." in words
    assert words.endswith("The account is right.\n")


def test_a_budget_that_only_reports_and_one_that_has_ended(key: str) -> None:
    made = told("budgets", "create", f"key:{key}", "5usd", "--report")
    assert made["mode"] == "report"
    run("budgets", "end", made["id"])
    assert told("budgets", "list") == []
    [ended] = told("budgets", "list", "--all")
    assert (ended["id"], ended["ended_at"] is not None) == (made["id"], True)


def test_the_audit_says_who_what_and_from_what_to_what(key: str) -> None:
    made = told("budgets", "create", f"key:{key}", "1000tok")
    run("budgets", "set", made["id"], "--amount", "2000tok")
    [newest] = told("audit", "--limit", "1")
    assert (newest["action"], newest["subject"]) == ("budget.change", made["id"])
    assert (newest["before"]["amount"], newest["after"]["amount"]) == (1000, 2000)
    assert newest["actor"].startswith("cli")
    assert f"budget.change  {made['id']}" in run("audit")


def test_a_backup_is_whole_and_replaces_nothing_unasked(home: Path, key: str) -> None:
    fill(home, key)
    copy = home / "copy.db"
    said = told("backup", str(copy))
    assert said["bytes"] == copy.stat().st_size
    assert copy.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(copy) as database:
        assert database.execute("SELECT count(*) FROM postings").fetchone() == (2,)
    assert "is there already" in refused("backup", str(copy)).output
    run("backup", str(copy), "--force")
    assert "can't be written" in refused("backup", str(home / "nowhere" / "copy.db")).output
    assert [file.name for file in home.glob(".copy*")] == []


def test_a_backup_ends_although_a_server_writes_all_the_time(home: Path, key: str) -> None:
    source = home / "chatport.db"
    with sqlite3.connect(source) as database:
        database.execute("CREATE TABLE ballast (bytes BLOB)")
        database.executemany("INSERT INTO ballast VALUES (zeroblob(100000))", [()] * 500)
    ended = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        database = sqlite3.connect(source, isolation_level=None)
        database.execute("PRAGMA synchronous = NORMAL")
        while not ended.wait(0.001):
            database.execute("UPDATE ballast SET bytes = randomblob(8) WHERE rowid = 1")
            written += 1
        database.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        began = time.monotonic()
        run("backup", str(home / "copy.db"))
        assert time.monotonic() - began < 20
    finally:
        ended.set()
        writer.join()
    assert written
    with sqlite3.connect(home / "copy.db") as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_postgresql_database_is_pg_dump_s_business(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "chatport.toml").write_text('[store]\nurl = "postgresql://u@127.0.0.1/d"\n')
    assert "pg_dump" in refused("backup", str(home / "copy.db")).output


def test_a_key_is_made_with_its_budget() -> None:
    made = told("keys", "create", "--budget", "5usd/month")
    [budget] = told("budgets", "list")
    assert (budget["id"], budget["scope"], budget["limit"]) == (made["budget"], f"key:{made['id']}", 5 * 10**9)
    assert told("keys", "create")["budget"] is None
    refused("keys", "create", "--budget", "much", code=2)
    assert len(told("keys", "list")) == 2


def test_the_audit_knows_of_keys_but_no_key() -> None:
    made = told("keys", "create", "--name", "seen")
    run("keys", "revoke", made["id"])
    rows = [row for row in told("audit") if row["subject"] == made["id"]]
    assert [row["action"] for row in rows] == ["key.revoke", "key.create"]
    assert rows[1]["after"]["name"] == "seen"
    assert "digest" not in rows[1]["after"]
    assert made["key"] not in run("audit")


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
def test_a_backup_never_replaces_the_database_itself(home: Path, key: str, ending: str) -> None:
    """A server would go on writing into a file that nobody can open any more."""
    fill(home, key)
    live = home / f"chatport.db{ending}"
    live.touch()
    before = live.stat().st_ino
    assert "is the database itself" in refused("backup", str(live), "--force").output
    linked = home / "link.db"
    linked.symlink_to(live)
    assert "is the database itself" in refused("backup", str(linked), "--force").output
    assert live.stat().st_ino == before
