"""One logprobs item for each sampled token.

The engine says nothing of a token that ends inside a character: the bytes of "🎉" are four tokens, and only the last
has an entry. But it says how many tokens it has sampled, so the gap shows; and the text that comes after the gap holds
the bytes of the tokens in it. What is missing is then asked for: with the answer so far as the prompt and some plain
token forced, the probabilities at that place are told, and in them the token whose bytes these are, with its logprob.
Where the bytes can be split into so many tokens in several ways, or nothing follows (the answer was cut inside a
character), the likeliest token is taken that fits, which at temperature 0 is the one that was sampled.

Joined, the items' bytes are the content: a control token (the end of the turn) has none. Logprobs are the model's own,
before temperature, bias and penalties.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from chatport.backends.llama.vocabulary import Vocabulary
from chatport.wire.chat import TokenLogprob, TopLogprob

LOWEST: Final = -9999.0
"""Stands for minus infinity, as in OpenAI's answers."""
ASKED_FIRST: Final = 50
"""Probabilities looked through for a missing token, before all of them are."""
LONGEST_CHARACTER: Final = 4
"""Bytes, in UTF-8."""

Entry = dict[str, Any]
"""What the engine says of one token: id, logprob, top_logprobs."""
Probabilities = Callable[[Sequence[int], int], list[Entry]]
"""The likeliest so many tokens after prompt and these generated ones, the likeliest first."""
Fits = Callable[[int], bool]


class TokenLog:
    """The tokens of one choice in the order they were sampled, and an item for each."""

    def __init__(self, vocabulary: Vocabulary, top: int) -> None:
        self._vocabulary = vocabulary
        self._top = top
        self._tail = b""  # the last bytes said, as many as a character may have
        self.ids: list[int] = []

    def add(self, entry: Entry) -> TokenLogprob:
        """The item of a token that the engine told of."""
        self.ids.append(entry["id"])
        content = self._vocabulary.says(entry["id"])
        self._tail = (self._tail + content)[-LONGEST_CHARACTER:]
        return TokenLogprob(
            token=_spelled(content),
            logprob=_finite(entry["logprob"]),
            bytes=list(content),
            top_logprobs=[self._top_item(other) for other in entry["top_logprobs"][: self._top]],
        )

    def fill(self, gap: int, text: str, follows: Entry | None, ask: Probabilities) -> list[TokenLogprob]:
        """The items of `gap` tokens that the engine did not tell of. text: what they and the token that `follows` say;
        None follows where the answer ended inside a character."""
        after = None if follows is None else self._vocabulary.says(follows["id"])
        missing = None if after is None else _bytes_before(text.encode(), after, gap)
        items = []
        for left in range(gap - 1, -1, -1):
            item = self.add(self._missing_token(missing, left, ask))
            if missing is not None:
                missing = missing[len(item.bytes or ()) :]
            items.append(item)
        return items

    def _missing_token(self, missing: bytes | None, left: int, ask: Probabilities) -> Entry:
        """The likeliest token that can stand here. missing: the bytes from here on, None where they are not known;
        left: how many more tokens there are in the gap after this one."""

        def fits(token: int) -> bool:
            content = self._vocabulary.says(token)
            if not content or _is_whole(self._tail + content):
                return False  # the engine would have told of it
            return missing is None or (
                missing.startswith(content) and self._vocabulary.splits(missing[len(content) :], left)
            )

        for wanted in (max(ASKED_FIRST, self._top), len(self._vocabulary)):
            ranked = ask(self.ids, wanted)
            if found := next((entry for entry in ranked if fits(entry["id"])), None):
                break
        return {**(found or ranked[0]), "top_logprobs": ranked}

    def _top_item(self, entry: Entry) -> TopLogprob:
        content = self._vocabulary.says(entry["id"])
        return TopLogprob(token=_spelled(content), logprob=_finite(entry["logprob"]), bytes=list(content))


def _bytes_before(said: bytes, after: bytes, tokens: int) -> bytes | None:
    """What so many tokens inside a character have said, if `after` came next; None where it can't be told."""
    end = len(said) - len(after)
    return said[:end] if end >= tokens and said.endswith(after) else None


def _is_whole(content: bytes) -> bool:
    """Whether the bytes end at the end of a character (of valid UTF-8, or of garbage)."""
    for back, byte in enumerate(reversed(content[-LONGEST_CHARACTER:]), start=1):
        if byte & 0xC0 != 0x80:  # where the last character begins
            length = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back >= length
    return True


def _spelled(content: bytes) -> str:
    """The token as text; as OpenAI spells it where it is a part of a character."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def _finite(logprob: float) -> float:
    return min(0.0, max(LOWEST, logprob))
