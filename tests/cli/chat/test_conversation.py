"""Turns, and the file that keeps them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chatport.cli.chat.conversation import Conversation
from chatport.cli.chat.errors import FileTrouble
from chatport.wire.decode import DecodeLimits, decode_request


def said(conversation: Conversation) -> list[tuple[Any, Any]]:
    return [(message.__struct_config__.tag, message.content) for message in conversation.messages]


def test_a_question_that_was_not_answered_gives_way_to_the_next() -> None:
    conversation = Conversation("Be kind.")
    conversation.ask("one")
    conversation.answer("")
    conversation.ask("two")
    conversation.answer("2")
    conversation.ask("three")
    assert said(conversation) == [("system", "Be kind."), ("user", "two"), ("assistant", "2"), ("user", "three")]


def test_the_last_question_is_opened_again() -> None:
    conversation = Conversation()
    assert not conversation.reopen()
    conversation.ask("one")
    assert conversation.reopen()
    conversation.answer("1")
    assert conversation.reopen()
    assert said(conversation) == [("user", "one")]


def test_a_saved_conversation_is_a_request_and_comes_back(tmp_path: Path) -> None:
    conversation = Conversation("Be kind.")
    conversation.ask("春天 \x00 \x1b")
    conversation.answer("yes\n")
    conversation.save(tmp_path / "talk.json", "m")
    decode_request((tmp_path / "talk.json").read_bytes(), DecodeLimits())
    again = Conversation("Something else.")
    again.ask("forgotten")
    assert again.load(tmp_path / "talk.json") == "m"
    assert said(again) == said(conversation)
    assert again.system == "Be kind."


def test_any_request_can_be_loaded(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages = [{"role": "user", "content": [image]}, {"role": "assistant", "content": "A cat."}]
    (tmp_path / "body.json").write_text(json.dumps({"model": "m", "stream": True, "messages": messages}))
    conversation = Conversation("Gone.")
    conversation.load(tmp_path / "body.json")
    conversation.save(tmp_path / "again.json", "m")
    assert json.loads((tmp_path / "again.json").read_text()) == {"model": "m", "messages": messages}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "holds no conversation: Input data was truncated"),
        (b'{"model": "m"}', "holds no conversation: Object missing required field `messages`"),
        (b'{"model": "m", "messages": [{"role": "cat"}]}', "Invalid value 'cat'"),
        (b"\xff\xfe", "holds no conversation"),
        (b'{"model": "\xff", "messages": []}', "holds no conversation"),
        (b'{"x": ' + b"[" * 100_000, "holds no conversation"),
        (None, "Can't read"),
    ],
)
def test_a_bad_file_changes_nothing(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    file = tmp_path / "bad.json"
    if content is not None:
        file.write_bytes(content)
    conversation = Conversation("Be kind.")
    conversation.ask("one")
    with pytest.raises(FileTrouble, match=sentence):
        conversation.load(file)
    assert said(conversation) == [("system", "Be kind."), ("user", "one")]


def test_a_file_that_can_not_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileTrouble, match="Can't write"):
        Conversation().save(tmp_path / "folder", "m")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
