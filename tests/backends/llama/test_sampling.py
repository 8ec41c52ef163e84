"""A request's parameters in the engine's words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.backends.llama.calls import OURS
from chatport.backends.llama.reader import Reading
from chatport.backends.llama.sampling import RANDOM, engine_seed, is_exact, sampling
from chatport.backends.llama.shape import Shape
from chatport.wire.chat import ChatRequest
from chatport.wire.tools import Offer
from support.vocabularies import vocabulary_of

VOCABULARY = vocabulary_of("gpt2", b"<end>", b"a", b"b", b"c", types=[3, 1, 1, 1])


def request(**fields: Any) -> ChatRequest:
    return msgspec.convert({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}, ChatRequest)


PLAIN = Shape(grammar=None, reading=Reading(form=OURS), preserved=[], offer=Offer())


def body(*, shape: Shape = PLAIN, **fields: Any) -> dict[str, Any]:
    return sampling(request(**fields), (1, 2, 1, 0), VOCABULARY, 64, shape)


def test_the_defaults_are_the_apis_not_the_engines() -> None:
    plain = body()
    assert (plain["temperature"], plain["top_p"], plain["top_k"], plain["min_p"]) == (1.0, 1.0, 0, 0.0)
    assert (plain["repeat_penalty"], plain["repeat_last_n"]) == (1.0, 0)
    assert not {"logit_bias", "n_probs", "stop", "timings_per_token"} & plain.keys()


@pytest.mark.parametrize("field", ["temperature", "top_p"])
def test_zero_is_a_value(field: str) -> None:
    fields: dict[str, Any] = {field: 0}
    assert body(**fields)[field] == 0


def test_unknown_tokens_of_a_bias_are_ignored() -> None:
    assert body(logit_bias={"1": 5, "4": 100, "999999999": -100})["logit_bias"] == [[1, 5.0]]


def test_the_frequency_penalty_gives_back_what_the_prompts_tokens_would_lose() -> None:
    told = body(frequency_penalty=0.5)
    assert told["logit_bias"] == [[0, 0.5], [1, 1.0], [2, 0.5]]
    assert told["repeat_last_n"] == 64


def test_the_presence_penalty_spares_control_tokens() -> None:
    assert body(presence_penalty=1.5)["logit_bias"] == [[0, 1.5]]


def test_a_bias_adds_to_what_is_given_back() -> None:
    assert body(frequency_penalty=0.5, logit_bias={"1": 2})["logit_bias"] == [[0, 0.5], [1, 3.0], [2, 0.5]]


@pytest.mark.parametrize(("top", "asked"), [(None, 1), (0, 1), (20, 20)])
def test_logprobs_are_asked_for(top: int | None, asked: int) -> None:
    told = body(logprobs=True, top_logprobs=top)
    assert (told["n_probs"], told["timings_per_token"]) == (asked, True)


def test_tokens_are_counted_where_we_may_end_an_answer_ourselves() -> None:
    assert body(stop="x")["timings_per_token"] is True


@pytest.mark.parametrize(
    ("fields", "exact"), [({}, False), ({"temperature": 0}, True), ({"seed": 0}, True), ({"temperature": 0.1}, False)]
)
def test_which_requests_must_repeat(fields: dict[str, Any], exact: bool) -> None:
    assert is_exact(request(**fields)) is exact


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 127), st.integers(0, 100_000))
def test_any_seed_becomes_one_the_engine_takes(seed: int, choice: int, at: int) -> None:
    folded = engine_seed(seed, choice, at)
    assert 0 <= folded < RANDOM, "the last one means: draw one"
    assert folded == engine_seed(seed, choice, at)


def test_no_seed_is_a_random_one_and_choices_differ() -> None:
    assert engine_seed(None, 3) == RANDOM
    assert len({engine_seed(7, choice) for choice in range(128)}) == 128
    assert len({engine_seed(seed) for seed in (-1, 0, 1, 2**32, 2**62, -(2**63))}) == 6


def test_a_grammar_and_what_it_stands_on_go_to_the_engine() -> None:
    held = body(shape=msgspec.structs.replace(PLAIN, grammar="start: A", preserved=["[TOOL_CALLS]"]))
    assert (held["grammar"], held["preserved_tokens"]) == ("start: A", ["[TOOL_CALLS]"])
    assert "timings_per_token" not in held
    calls = msgspec.structs.replace(PLAIN, reading=Reading(form=OURS, functions=True))
    assert body(shape=calls)["timings_per_token"], "the reader may end the answer: tokens must be counted as they come"
    assert not {"grammar", "preserved_tokens"} & body().keys()
