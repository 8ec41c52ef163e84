"""An item for each token, also for those the engine does not tell of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from chatport.backends.llama.logprobs import LOWEST, TokenLog
from chatport.backends.llama.vocabulary import Vocabulary
from support.vocabularies import vocabulary_of

TOKENS = [b"<0xF0>", b"<0x9F>", b"<0x8E>", b"<0x89>", b"a", b"</s>", b"b", "é".encode()]
TYPES = [6, 6, 6, 6, 1, 3, 1, 1]
F0, X9F, X8E, X89, A, END, B, E_ACUTE = range(8)


@pytest.fixture
def vocabulary() -> Vocabulary:
    return vocabulary_of("llama", *TOKENS, types=TYPES)


def entry(token: int, logprob: float = -1.0, top: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"id": token, "logprob": logprob, "top_logprobs": list(top)}


def never(generated: Sequence[int], wanted: int) -> list[dict[str, Any]]:
    raise AssertionError("nothing is missing")


class Oracle:
    """Tells tokens in this order, and remembers what it was asked."""

    def __init__(self, *ranking: int) -> None:
        self.ranking = ranking
        self.asked: list[tuple[list[int], int]] = []

    def __call__(self, generated: Sequence[int], wanted: int) -> list[dict[str, Any]]:
        self.asked.append((list(generated), wanted))
        return [entry(token, -float(rank)) for rank, token in enumerate(self.ranking[:wanted])]


def test_a_token_and_the_likeliest(vocabulary: Vocabulary) -> None:
    item = TokenLog(vocabulary, 2).add(entry(A, -0.5, [entry(B, -0.1), entry(A, -0.5), entry(END, -9)]))
    assert (item.token, item.bytes, item.logprob) == ("a", [97], -0.5)
    assert [(top.token, top.logprob, top.bytes) for top in item.top_logprobs] == [("b", -0.1, [98]), ("a", -0.5, [97])]


def test_the_end_of_the_turn_says_nothing(vocabulary: Vocabulary) -> None:
    item = TokenLog(vocabulary, 0).add(entry(END))
    assert (item.token, item.bytes, item.top_logprobs) == ("", [], [])


def test_a_part_of_a_character_is_spelled_as_its_bytes(vocabulary: Vocabulary) -> None:
    assert TokenLog(vocabulary, 0).add(entry(F0)).token == "bytes:\\xf0"


@pytest.mark.parametrize(("told", "logprob"), [(-3.4e38, LOWEST), (1e-9, 0.0), (float("-inf"), LOWEST)])
def test_logprobs_are_finite_and_not_positive(vocabulary: Vocabulary, told: float, logprob: float) -> None:
    assert TokenLog(vocabulary, 0).add(entry(A, told)).logprob == logprob


def test_a_gap_is_filled_with_the_tokens_whose_bytes_follow(vocabulary: Vocabulary) -> None:
    log, oracle = TokenLog(vocabulary, 1), Oracle(A, X8E, X9F, F0, X89)
    log.add(entry(A))
    items = log.fill(3, "🎉", entry(X89), oracle)
    assert [bytes(item.bytes or ()) for item in items] == [b"\xf0", b"\x9f", b"\x8e"]
    assert log.ids == [A, F0, X9F, X8E]
    assert [generated for generated, _ in oracle.asked] == [[A], [A, F0], [A, F0, X9F]]
    assert [top.token for top in items[0].top_logprobs] == ["a"], "what was likelier at that place"


def test_a_gap_is_split_only_as_the_vocabulary_can() -> None:
    """A space alone is whole, and would have been told of; after the byte F0 alone nothing says the two that follow."""
    tokens = [b" ", b" \xf0", b" \xf0\x9f", b"\x8e", b"\x89", b"a"]
    log = TokenLog(vocabulary_of("raw", *tokens), 0)
    items = log.fill(2, " 🎉", entry(4), Oracle(5, 0, 1, 2, 3))
    assert [bytes(item.bytes or ()) for item in items] == [b" \xf0\x9f", b"\x8e"]


def test_a_rare_token_is_looked_for_among_all(vocabulary: Vocabulary) -> None:
    oracle = Oracle(*[A] * 60, F0)
    (item,) = TokenLog(vocabulary, 0).fill(1, "\U00010000", None, lambda generated, wanted: oracle(generated, 61))
    assert item.bytes == [0xF0]


def test_an_answer_cut_inside_a_character(vocabulary: Vocabulary) -> None:
    items = TokenLog(vocabulary, 0).fill(2, "", None, Oracle(A, END, X9F, E_ACUTE, F0))
    assert [bytes(item.bytes or ()) for item in items] == [b"\xf0", b"\x9f"]


def test_what_cannot_be_told_is_the_likeliest(vocabulary: Vocabulary) -> None:
    (item,) = TokenLog(vocabulary, 0).fill(1, "\ufffd", entry(B), Oracle(A, B))
    assert item.token == "a"
