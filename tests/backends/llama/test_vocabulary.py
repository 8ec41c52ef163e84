"""What tokens say."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatport.backends.llama.gguf import read
from chatport.backends.llama.vocabulary import Vocabulary
from support.vocabularies import vocabulary_of


@pytest.mark.parametrize(
    ("tokenizer", "token", "content"),
    [
        ("gpt2", "Ġthe".encode(), b" the"),
        ("gpt2", "ðŁ".encode(), b"\xf0\x9f"),
        ("gpt2", "Ċ".encode(), b"\n"),
        ("gpt2", "—".encode(), "—".encode()),
        ("llama", "▁the".encode(), b" the"),
        ("llama", b"<0xF0>", b"\xf0"),
        ("something new", b"the", b"the"),
    ],
)
def test_spellings(tokenizer: str, token: bytes, content: bytes) -> None:
    assert vocabulary_of(tokenizer, token).says(0) == content


def test_control_tokens_say_nothing() -> None:
    words = vocabulary_of("gpt2", b"<s>", b"<|end|>", b"a", b"<b>", types=[3, 1, 1, 4])
    assert [words.says(token) for token in range(4)] == [b"", b"", b"a", b"<b>"]
    assert words.control_texts == {"<s>", "<|end|>"}


def test_tokens_nobody_knows_say_nothing() -> None:
    words = vocabulary_of("gpt2", b"a")
    assert (words.says(7), words.says(-1), words.spelling(None), words.spelling(9)) == (b"", b"", "", "")


def test_every_byte_has_a_letter() -> None:
    letters = {chr(byte) for byte in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))}
    letters |= {chr(256 + n) for n in range(256 - len(letters))}
    words = vocabulary_of("gpt2", *(letter.encode() for letter in letters))
    assert {words.says(token) for token in range(256)} == {bytes([byte]) for byte in range(256)}


def test_plain_tokens_are_two_letters() -> None:
    words = vocabulary_of("gpt2", b"<s>", b"ab", b"1", b"x", b"y", types=[3, 1, 1, 1, 1])
    assert words.plain_tokens == (3, 4)


def test_the_default_model(smollm2_path: Path) -> None:
    words = Vocabulary(read(smollm2_path))
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= words.control_texts
    assert words.spelling(2) == "<|im_end|>"
    assert all(words.says(token) for token in range(17, len(words)))
