"""`chatport serve`: what is refused before anything runs, which keys are made, and the words of the start."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs
from typer.testing import CliRunner

from chatport import runtime
from chatport.backends.llama import weights
from chatport.cli import serve
from chatport.cli.app import app
from chatport.cli.keys import opened_keys
from chatport.cli.port import refusal
from chatport.cli.serve import first_keys, start_of
from chatport.cli.welcome import KeysMade, Start, welcome
from chatport.config import Config, ConfigError, load

KEY, ADMIN_KEY = "sk-mine-0123456789abcdef", "sk-mine-admin-0123456789abcdef"
runner = CliRunner()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CHATPORT_CONFIG", "CHATPORT_BOOTSTRAP_KEY", "CHATPORT_BOOTSTRAP_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CHATPORT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    file = tmp_path / "chatport.toml"
    file.write_text('[[models]]\nid = "echo"\nbackend = "scripted"\naliases = ["gpt-4"]\n')
    return file


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of models that would have been fetched; nothing is served."""
    names: list[str] = []
    monkeypatch.setattr(weights, "pull", lambda name, home, progress: names.append(name))
    monkeypatch.setattr(serve, "_run", lambda config, sock, read: None)
    monkeypatch.setattr("chatport.backends.llama.installed.packaged_file", lambda model: None)
    return names


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--workers", "2"], 2, "--workers 2 is not possible yet"),
        (["--workers", "0"], 2, "--workers"),
        (["--port", "70000"], 2, "--port"),
        (["--log-level", "loud"], 2, '--log-level: "loud" is not allowed; allowed: "debug"'),
        (["--config", "gone.toml"], 3, "gone.toml: can't be read: No such file or directory."),
        (["--host", "no such host"], 4, "There is no address for the host no such host"),
        (["--port", "0", "--model", "gone.gguf"], 5, "There is no model file"),
        (["--port", "0", "--model", "smolm2"], 5, 'There is no model "smolm2". Did you mean "smollm2-135m"?'),
    ],
)
def test_what_can_not_be_served_ends_with_a_sentence_and_a_code(
    arguments: list[str], code: int, sentence: str, pulled: list[str]
) -> None:
    result = runner.invoke(app, ["serve", *arguments])
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr
    assert pulled == []


def test_a_taken_port_is_told_before_anything_is_fetched(taken: int, pulled: list[str]) -> None:
    result = runner.invoke(app, ["serve", "--port", str(taken)])
    assert result.exit_code == 4
    assert result.stderr.startswith(f"error: Port {taken} of 127.0.0.1 is taken by another program")
    assert "--port 0" in result.stderr
    assert pulled == []


def test_a_port_that_another_program_took_while_we_loaded(scripted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_serve(config: Config, sock: socket.socket, greet: object, read: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(runtime, "serve", run_serve)
    result = runner.invoke(app, ["serve", "--port", "0", "--config", str(scripted)])
    assert result.exit_code == 4
    assert "is taken by another program" in result.stderr


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (errno.EACCES, "needs administrator rights"),
        (errno.EADDRNOTAVAIL, "192.0.2.1 is no address of this machine"),
        (errno.ENOBUFS, "Can't listen on 192.0.2.1 port 80: No buffer space available."),
    ],
)
def test_why_a_port_is_refused(fault: int, sentence: str) -> None:
    assert sentence in refusal("192.0.2.1", 80, OSError(fault, os.strerror(fault)))


def test_a_fault_of_the_file_is_told_with_its_line(scripted: Path) -> None:
    scripted.write_text("[server]\nport = -1\n")
    result = runner.invoke(app, ["serve", "--config", str(scripted)])
    assert result.exit_code == 3
    assert result.stderr == (
        f"error: {scripted}:2: server.port: -1 is not allowed; allowed: a whole number from 0 to 65535.\n"
    )


def test_a_home_that_can_not_be_made(home: Path, scripted: Path) -> None:
    home.write_text("a file")
    result = runner.invoke(app, ["serve", "--port", "0", "--config", str(scripted)])
    assert result.exit_code == 6
    assert "CHATPORT_HOME names another one." in result.stderr


def test_a_store_that_can_not_be_opened(home: Path, scripted: Path) -> None:
    (home / "chatport.db").mkdir(parents=True)
    result = runner.invoke(app, ["serve", "--port", "0", "--config", str(scripted)])
    assert result.exit_code == 6
    assert result.stderr.startswith("error: ")


def test_sigterm_while_fetching_ends_in_good_order(pulled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "pull", lambda name, home, progress: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    result = runner.invoke(app, ["serve", "--port", "0"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("arguments", "fetched"),
    [
        ([], "smollm2-135m"),
        (["--model", "smollm2-135m"], "smollm2-135m"),
        (["--model", "qwen3-0.6b"], "qwen3-0.6b"),
        (["--model", "own/repo/x.gguf"], "own/repo/x.gguf"),
    ],
)
def test_a_model_that_is_missing_is_fetched(arguments: list[str], fetched: str, pulled: list[str]) -> None:
    assert runner.invoke(app, ["serve", "--port", "0", *arguments]).exit_code == 0
    assert pulled == [fetched]


def test_a_model_that_is_here_is_not_fetched(home: Path, pulled: list[str]) -> None:
    (home / "models").mkdir(parents=True)
    (home / "models" / "smollm2-135m.gguf").write_bytes(b"GGUF")
    assert runner.invoke(app, ["serve", "--port", "0"]).exit_code == 0
    (home / "models" / "own" / "repo").mkdir(parents=True)
    (home / "models" / "own" / "repo" / "x.gguf").write_bytes(b"GGUF")
    assert runner.invoke(app, ["serve", "--port", "0", "--model", "own/repo/x"]).exit_code == 0
    assert pulled == []


@pytest.mark.parametrize("name", ["smollm2-135m", "qwen3-4b", "own/repo/x.gguf"])
def test_a_configured_model_is_not_fetched_unasked(name: str, scripted: Path, pulled: list[str]) -> None:
    scripted.write_text(f'[[models]]\nid = "a"\nbackend = "llama"\npath = "{name}"\n')
    result = runner.invoke(app, ["serve", "--port", "0", "--config", str(scripted)])
    assert result.exit_code == 5
    assert f"etch it with: chatport models pull {name}" in result.stderr
    assert pulled == []


def test_without_the_engine_the_sentence_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, pulled: list[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = runner.invoke(app, ["serve", "--port", "0"])
    assert result.exit_code == 5
    assert "-m pip install 'chatport[embedded]'" in result.stderr
    assert pulled == []


def test_the_first_start_mints_two_keys_and_the_second_none(scripted: Path) -> None:
    async def starts() -> list[KeysMade]:
        async with opened_keys(load(scripted, os.environ)) as keys:
            return [await first_keys(keys, {}), await first_keys(keys, {})]

    first, second = asyncio.run(starts())
    assert (first.key or "").startswith("sk-cp-")
    assert (first.admin_key or "").startswith("sk-cp-admin-")
    assert second == KeysMade()


def test_keys_of_the_environment_are_registered_once_and_nothing_is_minted(tmp_path: Path) -> None:
    config = Config(home=tmp_path)
    environ = {"CHATPORT_BOOTSTRAP_KEY": KEY, "CHATPORT_BOOTSTRAP_ADMIN_KEY": ADMIN_KEY}

    async def starts() -> list[bool]:
        async with opened_keys(config) as keys:
            first, second = [await first_keys(keys, environ) for _ in range(2)]
            assert first == KeysMade(registered=("CHATPORT_BOOTSTRAP_KEY", "CHATPORT_BOOTSTRAP_ADMIN_KEY"))
            assert second == KeysMade()
            assert keys.authenticate(f"Bearer {KEY}", 0).admin is False
            return [row.admin for row in await keys.list()]

    assert sorted(asyncio.run(starts())) == [False, True]


def test_an_api_key_alone_is_registered_and_the_missing_admin_key_noticed(tmp_path: Path) -> None:
    environ = {"CHATPORT_BOOTSTRAP_KEY": KEY}

    async def starts() -> list[KeysMade]:
        async with opened_keys(Config(home=tmp_path)) as keys:
            made = [await first_keys(keys, environ)]
            admin = await keys.create(name="admin", now=1, admin=True)
            await keys.create(name="expired admin", now=1, admin=True, expires_at=2)
            made.append(await first_keys(keys, environ))
            await keys.revoke(admin.id, 2)
            return [*made, await first_keys(keys, environ)]

    assert asyncio.run(starts()) == [
        KeysMade(registered=("CHATPORT_BOOTSTRAP_KEY",), has_admin=False),
        KeysMade(),
        KeysMade(has_admin=False),
    ]


def test_a_bad_key_of_the_environment_is_told_without_repeating_it(tmp_path: Path) -> None:
    async def start() -> None:
        async with opened_keys(Config(home=tmp_path)) as keys:
            await first_keys(keys, {"CHATPORT_BOOTSTRAP_KEY": "hunter2"})

    with pytest.raises(ConfigError, match=r"^CHATPORT_BOOTSTRAP_KEY: A key must have 16 to 512 characters") as error:
        asyncio.run(start())
    assert "hunter2" not in str(error.value)


START = Start(
    url="http://127.0.0.1:8000",
    models=(("smollm2-135m", "gpt-4"), ("echo",)),
    keys=KeysMade(key="sk-cp-abc", admin_key="sk-cp-admin-abc"),
    mint="/opt/bin/chatport keys create",
    mint_admin="/opt/bin/chatport keys create --admin",
    bigger="/opt/bin/chatport serve --model /path/to/MODEL.gguf",
)


def test_the_first_welcome_gives_address_keys_and_a_line_to_paste() -> None:
    text = welcome(START)
    for words in (
        "http://127.0.0.1:8000/v1\n",
        "smollm2-135m (= gpt-4), echo\n",
        "export OPENAI_BASE_URL=http://127.0.0.1:8000/v1\n",
        "export OPENAI_API_KEY=sk-cp-abc\n",
        "admin key  管理员密钥  sk-cp-admin-abc",
        "仅显示这一次",
    ):
        assert words in text
    assert "keys create" not in text
    assert "NO_PROXY" not in text


def test_the_curl_line_is_one_line_that_a_shell_understands() -> None:
    (line,) = re.findall(r"^  (curl .*)$", welcome(START), re.MULTILINE)
    words = subprocess.run(
        ["sh", "-c", line.replace("curl", "printf '%s\\n'", 1)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert words[0] == "http://127.0.0.1:8000/v1/chat/completions"
    assert "Authorization: Bearer sk-cp-abc" in words
    assert '"model": "smollm2-135m"' in words[-1]


def test_a_later_welcome_says_how_to_mint_a_key() -> None:
    text = welcome(structs.replace(START, keys=KeysMade()))
    assert "Keys were made before" in text
    assert "  /opt/bin/chatport keys create\n" in text
    assert "--admin" not in text
    assert '"Authorization: Bearer $OPENAI_API_KEY"' in text


def test_a_welcome_to_keys_of_the_environment_says_where_they_are_from() -> None:
    made = KeysMade(registered=("CHATPORT_BOOTSTRAP_KEY", "CHATPORT_BOOTSTRAP_ADMIN_KEY"))
    text = welcome(structs.replace(START, keys=made))
    assert "Registered from CHATPORT_BOOTSTRAP_KEY and CHATPORT_BOOTSTRAP_ADMIN_KEY" in text
    assert "已登记环境变量中的密钥" in text
    assert "made before" not in text
    assert "--admin" not in text


def test_a_welcome_without_any_admin_key_says_how_to_make_one() -> None:
    text = welcome(structs.replace(START, keys=KeysMade(has_admin=False)))
    assert "There is no admin key." in text
    assert "尚无可用的管理员密钥" in text
    assert "  /opt/bin/chatport keys create --admin\n" in text


def start(config: Config, url: str = "http://127.0.0.1:8000", **environ: str) -> Start:
    return start_of(config, url, KeysMade(), environ)


def test_the_small_model_is_not_praised(tmp_path: Path) -> None:
    text = welcome(start(Config(home=tmp_path)))
    assert "of no use in Chinese" in text
    assert "不会中文" in text
    assert "serve --model qwen3-4b\n" in text


def test_a_file_that_replaced_the_default_model_is_named(scripted: Path) -> None:
    assert f"The models of {scripted} are served instead of the default one." in welcome(start(load(scripted, {})))
    assert "instead of the default" not in welcome(start(load(scripted, {}, model="smollm2-135m")))
    assert "of no use in Chinese" not in welcome(start(load(scripted, {})))


def test_the_command_that_mints_works_on_the_same_database(
    scripted: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/opt/my bin/chatport", "serve"])
    mint = start(load(scripted, {"CHATPORT_HOME": str(home)})).mint
    assert mint == f"CHATPORT_HOME={home} '/opt/my bin/chatport' keys create --config {scripted}"
    monkeypatch.setattr("sys.argv", ["/site/chatport/__main__.py"])
    assert f"{sys.executable} -m chatport keys create" in start(load(scripted, {})).mint


def test_an_address_that_others_can_reach_is_told(tmp_path: Path) -> None:
    assert "without encryption" in welcome(start(load(None, {"CHATPORT_HOME": str(tmp_path)}, host="0.0.0.0")))
    assert "without encryption" not in welcome(start(load(None, {"CHATPORT_HOME": str(tmp_path)}, host="localhost")))


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"HTTP_PROXY": "http://p:1"}, 'export NO_PROXY="127.0.0.1,localhost"'),
        ({"ALL_PROXY": "socks5://p:1", "NO_PROXY": "corp"}, 'export NO_PROXY="corp,127.0.0.1,localhost"'),
        ({"http_proxy": "http://p:1", "no_proxy": "localhost"}, 'export NO_PROXY="localhost,127.0.0.1,localhost"'),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "a, 127.0.0.1"}, None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "127.0.0.0/8"}, None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p:1"}, None),
        ({}, None),
    ],
)
def test_a_proxy_that_would_catch_loopback_is_told(environ: dict[str, str], line: str | None, tmp_path: Path) -> None:
    text = welcome(start(Config(home=tmp_path), **environ))
    assert (line in text) if line else ("NO_PROXY" not in text)


def test_the_welcome_is_printed_when_the_server_listens(scripted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_server(app: object, sock: socket.socket, settings: object) -> None:
        """Ends at once, as after a signal."""

    monkeypatch.setattr(runtime, "run_server", run_server)
    result = runner.invoke(app, ["serve", "--port", "0", "--config", str(scripted)])
    assert result.exit_code == 0, result.output
    assert re.search(r"API     http://127\.0\.0\.1:\d+/v1\n  models  echo \(= gpt-4\)\n", result.stdout)
    again = runner.invoke(app, ["serve", "--port", "0", "--config", str(scripted)])
    assert "Keys were made before" in again.stdout
