"""`chatport prices`, on a database of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chatport.cli.app import app

runner = CliRunner()
ENTRY = {"id", "model", "source", "state", "rates", "effective_at", "created_at", "ended_at"}

CONFIG = """
[[models]]
id = "mini"
[[models.targets]]
provider = "openai"
api_key = "k"
model = "gpt-4o-mini-2024-07-18"
[[models.targets]]
provider = "xai"
api_key = "k"
model = "no-such-model"
[[models]]
id = "far/*"
[[models.targets]]
provider = "deepseek"
api_key = "k"
[[models]]
id = "named"
price_model = "anthropic/claude-opus-4-6"
[[models.targets]]
backend = "openai"
base_url = "http://127.0.0.1:1/v1"
[[models]]
id = "echo"
backend = "scripted"
price = { prompt = 0.1, completion = 0.2 }
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "chatport.toml").write_text(CONFIG)
    monkeypatch.setenv("CHATPORT_CONFIG", str(tmp_path / "chatport.toml"))
    monkeypatch.setenv("CHATPORT_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "60")
    return tmp_path


def run(*arguments: str) -> Any:
    """What `--json` prints."""
    result = runner.invoke(app, ["prices", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def said(*arguments: str, code: int = 0) -> tuple[str, str]:
    result = runner.invoke(app, ["prices", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout, " ".join(result.stderr.replace("│", " ").split())


def test_import_takes_what_is_configured() -> None:
    done = run("import")
    assert done["source"].startswith("genai-prices ")
    assert done["missing"] == ["x-ai/no-such-model"]
    assert (done["ended"], done["unchanged"]) == (0, 0)
    found = {entry["model"]: entry for entry in run("list")}
    assert len(found) == done["models"]
    assert {"openai/gpt-4o-mini-2024-07-18", "deepseek/deepseek-chat", "anthropic/claude-opus-4-6"} <= found.keys()
    assert not any(model.startswith("x-ai/") for model in found)
    entry = found["openai/gpt-4o-mini-2024-07-18"]
    assert entry.keys() == ENTRY
    assert entry["rates"] == {"prompt": 150_000, "cached": 75_000, "completion": 600_000}
    assert (entry["state"], entry["source"]) == ("in_force", done["source"])


def test_importing_again_changes_nothing() -> None:
    first = run("import")
    again = run("import")
    assert (again["added"], again["ended"], again["unchanged"]) == (0, 0, first["added"])


def test_import_tells_what_it_did_and_what_is_missing() -> None:
    out, err = said("import")
    assert "prices added, 0 ended, 0 unchanged." in out
    assert "note: the list has no price for x-ai/no-such-model" in err


def test_import_of_everything() -> None:
    assert run("import", "--all")["models"] > 2000


def test_import_where_nothing_is_elsewhere(home: Path) -> None:
    (home / "chatport.toml").write_text('[[models]]\nid = "echo"\nbackend = "scripted"\n')
    assert "no configured model is at a provider of the list" in said("import")[1]


def test_import_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import chatport.cli  # noqa: PLC0415  its attribute is what a second import would find

    monkeypatch.setitem(sys.modules, "chatport.cli.price_list", None)
    monkeypatch.delattr(chatport.cli, "price_list", raising=False)
    assert "pip install 'chatport[prices]'" in said("import", code=1)[1]


def test_a_price_that_is_set() -> None:
    entry = run("set", "mini", "--prompt", "0.0375", "--completion", "0.6", "--cached", "0", "--request", "0.01")
    assert entry["rates"] == {"prompt": 37_500, "completion": 600_000, "cached": 0, "request": 10**10}
    assert (entry["model"], entry["source"], entry["state"]) == ("mini", "command", "in_force")
    later = run("set", "mini", "--prompt", "1", "--completion", "2", "--from", "2100-01-01")
    assert (later["state"], later["effective_at"]) == ("planned", 4_102_444_800)
    assert [each["state"] for each in run("list", "--model", "mini")] == ["in_force", "planned"]
    earlier = run("set", "mini", "--prompt", "1", "--completion", "2", "--from", "2099-12-31T23:00-01:00")
    assert earlier["effective_at"] == later["effective_at"]
    assert [each["id"] for each in run("list")] == [entry["id"], earlier["id"]]
    assert {each["id"]: each["state"] for each in run("list", "--all")} == {
        entry["id"]: "in_force",
        later["id"]: "ended",
        earlier["id"]: "planned",
    }


def test_set_and_list_for_people() -> None:
    out, err = said("set", "mini", "--prompt", "0.15", "--completion", "0.6")
    assert out.startswith("mini costs 0.15 USD per million tokens of the prompt and 0.6 of the answer from ")
    assert err == ""
    run("import")
    out, err = said("list", "--model", "mini")
    assert [line.split()[0] for line in out.splitlines()] == ["model", "mini", "openai/gpt-4o-mini-2024-07-18"]
    assert "in force" in out
    assert "USD per million tokens" in err
    assert [line.split()[0] for line in said("list", "--model", "far/deepseek-chat")[0].splitlines()] == [
        "model",
        "deepseek/deepseek-chat",
    ]


def test_a_price_without_effect_gets_a_note() -> None:
    assert (
        "the configuration has a price for echo, which wins"
        in said("set", "echo", "--prompt", "1", "--completion", "1")[1]
    )
    assert "no model with the id gone" in said("set", "gone", "--prompt", "1", "--completion", "1")[1]


def test_unset_takes_it_back() -> None:
    new = run("set", "mini", "--prompt", "1", "--completion", "1")
    assert run("unset", "mini") == [new["id"]]
    assert run("list") == []
    assert said("list")[0] == "There are no prices. Import a list with: chatport prices import\n"
    assert "No price was set for mini." in said("unset", "mini", code=1)[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--prompt", "0.0000001", "--completion", "1"], "Invalid value for --prompt: '0.0000001' is not allowed"),
        (["--prompt", "1", "--completion", "-1"], "Invalid value for --completion: '-1' is not allowed"),
        (["--prompt", "1", "--completion", "x"], "up to 6 decimals"),
        (["--prompt", "1", "--completion", "nan"], "from 0 to 1000000"),
        (["--prompt", "1", "--completion", "1", "--request", "1e-13"], "Invalid value for --request"),
        (["--prompt", "1", "--completion", "1", "--from", "soon"], "Invalid value for --from: 'soon' is no date"),
        (["--prompt", "1"], "Missing option '--completion'"),
    ],
)
def test_what_is_no_price(arguments: list[str], sentence: str) -> None:
    assert sentence in said("set", "mini", *arguments, code=2)[1]


def test_a_server_does_not_load_the_list() -> None:
    code = "import sys, chatport.runtime, chatport.cli.app; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
