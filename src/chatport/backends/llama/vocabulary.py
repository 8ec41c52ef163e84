"""A model's vocabulary: what each token says, and which texts would be taken for its control tokens."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from itertools import chain, repeat
from typing import Final

from chatport.backends.llama.gguf import ModelFile

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
"""llama.cpp's `llama_token_type`, as far as it matters here."""

LOOKS_LIKE_CONTROL: Final = re.compile(rb"<\|[^<>|\s]+\|>")
"""Files whose converter forgot the types: llama.cpp takes these for control tokens whatever their type says."""

SPELLED_BYTE: Final = re.compile(rb"<0x([0-9A-Fa-f]{2})>")
WORD_BOUNDARY: Final = "\u2581".encode()
"""How SentencePiece writes a space."""


class Vocabulary:
    """The tokens of one model. Ids the file does not know say nothing."""

    def __init__(self, model: ModelFile) -> None:
        self._tokens = model.tokens
        self._says = SPELLINGS.get(model.tokenizer, _as_it_is)
        typed = enumerate(zip(model.tokens, chain(model.token_types, repeat(NORMAL)), strict=False))
        self._control = {token: spelled for token, (spelled, kind) in typed if _is_control(spelled, kind)}
        self.control_texts = frozenset(
            text for spelled in self._control.values() if (text := spelled.decode("utf-8", "replace"))
        )
        """Texts that would become control tokens where a prompt holds them."""

    def __len__(self) -> int:
        return len(self._tokens)

    def spelling(self, token: int | None) -> str:
        """The token as a template writes it, `<|im_start|>` say; empty for none."""
        return "" if token is None or not self._knows(token) else self._tokens[token].decode("utf-8", "replace")

    def control_id(self, text: str) -> int | None:
        """The id of the control token that is spelled so; None where the text is text."""
        return next((token for token, spelled in self._control.items() if spelled == text.encode()), None)

    def says(self, token: int) -> bytes:
        """The bytes of text that a token stands for; none for a control token."""
        if not self._knows(token) or self.is_control(token):
            return b""
        return self._says(self._tokens[token])

    def is_control(self, token: int) -> bool:
        """Whether the token steers the model and says nothing."""
        return token in self._control

    @cached_property
    def longest(self) -> int:
        """Characters that one token can stand for, at the most."""
        return max(map(len, self._tokens), default=1)

    @cached_property
    def _fragments(self) -> frozenset[bytes]:
        """What those tokens say that are not whole characters."""
        return frozenset(said for token in range(len(self)) if not _is_text(said := self.says(token)))

    def splits(self, content: bytes, tokens: int) -> bool:
        """Whether the inside of a character can be said by exactly so many tokens."""
        if not tokens:
            return not content
        return any(
            content[:size] in self._fragments and self.splits(content[size:], tokens - 1)
            for size in range(1, len(content) - tokens + 2)
        )

    @cached_property
    def plain_tokens(self) -> tuple[int, int]:
        """Two tokens that say one letter each, for where any token will do that is whole."""
        letters = (token for token in range(len(self)) if len(said := self.says(token)) == 1 and said.isalpha())
        return next(letters), next(letters)

    def _knows(self, token: int) -> bool:
        return 0 <= token < len(self._tokens)


def _is_control(spelled: bytes, kind: int) -> bool:
    return kind in (UNKNOWN, CONTROL) or LOOKS_LIKE_CONTROL.fullmatch(spelled) is not None


def _is_text(said: bytes) -> bool:
    try:
        said.decode()
    except UnicodeDecodeError:
        return False
    return True


def _as_it_is(token: bytes) -> bytes:
    return token


def _sentencepiece(token: bytes) -> bytes:
    spelled = SPELLED_BYTE.fullmatch(token)
    return bytes.fromhex(spelled[1].decode()) if spelled else token.replace(WORD_BOUNDARY, b" ")


def _byte_level(token: bytes) -> bytes:
    letters = _byte_of_letter()
    text = token.decode("utf-8", "replace")
    if all(letter in letters for letter in text):
        return bytes(letters[letter] for letter in text)
    return token  # an added token, written as it is meant


@lru_cache(maxsize=1)
def _byte_of_letter() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes are their own letter, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


SPELLINGS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gpt2": _byte_level,
    "llama": _sentencepiece,
    "t5": _sentencepiece,
}
