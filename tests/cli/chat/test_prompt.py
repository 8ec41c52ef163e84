"""What was meant by what was typed, without a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory

from chatport.cli.chat import prompt
from chatport.cli.chat.prompt import CommandCompleter, command_of, is_open, opened_history, spoken


@pytest.mark.parametrize(
    ("typed", "is_block_open", "meant"),
    [
        ("Hello", False, "Hello"),
        ('"""', True, '"""'),
        ('""" one', True, '""" one'),
        ('"""""', True, '"""""'),
        ('""""""', False, ""),
        ('"""one"""', False, "one"),
        ('"""\n one\n\n"""', False, " one\n"),
        ('say """one', False, 'say """one'),
        (' "quoted" ', False, '"quoted"'),
    ],
)
def test_blocks(typed: str, is_block_open: bool, meant: str) -> None:
    assert (is_open(typed), spoken(typed)) == (is_block_open, meant)
    assert is_open(f"/system {typed}") == is_block_open


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/help", ("/help", "")),
        ("/model  a b ", ("/model", "a b")),
        ('/system """\nBe\nkind\n"""', ("/system", "Be\nkind")),
        (" /help", None),
        ("and/or", None),
        ("", None),
    ],
)
def test_commands(line: str, command: tuple[str, str] | None) -> None:
    assert command_of(line) == command


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("/", ["/model", "/save", "/bye"]),
        ("/mo", ["/model"]),
        ("/model ", ["gpt-4", "echo"]),
        ("/model g", ["gpt-4"]),
        ("/bye ", []),
        ("/nothing ", []),
        ("", []),
        ("gpt", []),
    ],
)
def test_completion(typed: str, offered: list[str]) -> None:
    completer = CommandCompleter({"/model": lambda: ["gpt-4", "echo"], "/save": None, "/bye": list})
    assert [found.text for found in completer.get_completions(Document(typed), CompleteEvent())] == offered


def test_a_long_history_loses_its_older_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "history"
    kept = opened_history(path)
    assert isinstance(kept, FileHistory)
    for number in range(50):
        kept.store_string(f"line {number}\nof two")
    monkeypatch.setattr(prompt, "HISTORY_BYTES", path.stat().st_size)
    assert len(list(FileHistory(str(path)).load_history_strings())) == 50
    monkeypatch.setattr(prompt, "HISTORY_BYTES", path.stat().st_size - 1)
    shortened = list(opened_history(path).load_history_strings())
    assert 15 < len(shortened) < 30
    assert shortened == [f"line {number}\nof two" for number in range(49, 49 - len(shortened), -1)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_costs_only_the_history() -> None:
    prompt.KeptHistory("/dev/full").store_string("not kept")


def test_a_history_that_others_could_read_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.touch(mode=0o644)
    opened_history(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_place_for_a_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(opened_history(tmp_path), InMemoryHistory)
    assert f"What you type is not remembered: {tmp_path}" in capsys.readouterr().out
