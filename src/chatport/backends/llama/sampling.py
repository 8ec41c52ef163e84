"""A request's sampling parameters as the engine takes them.

llama.cpp's defaults are not the API's (temperature 0.8, top_k 40, top_p 0.95, min_p 0.05), so every one that could act
is sent. Penalties: the engine counts the prompt's tokens too, where the API penalises what was generated. The frequency
penalty is set right by giving each of the prompt's tokens back in advance what it would lose. The presence penalty is
all or nothing, so that this would take it away for good from every word of the prompt; it is given back for control
tokens only, which else would be penalised for being in every prompt: the end of the turn above all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from chatport.backends.llama.engine import Body
from chatport.backends.llama.shape import Shape
from chatport.backends.llama.vocabulary import Vocabulary
from chatport.wire.chat import ChatRequest

OFF: Final[Body] = {
    "top_k": 0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "top_n_sigma": -1.0,
    "repeat_penalty": 1.0,
    "dry_multiplier": 0.0,
    "xtc_probability": 0.0,
    "dynatemp_range": 0.0,
    "mirostat": 0,
    "ignore_eos": False,
}
"""What the engine knows beyond the API, switched off."""

SEED_BITS: Final = 32
RANDOM: Final = 2**SEED_BITS - 1
"""The seed by which the engine understands: draw one."""

SPREAD_HIGH: Final = 0x85EBCA6B
SPREAD_AT: Final = 0x9E3779B1
"""Odd numbers that spread small ones over all bits, so that seeds which differ stay different (MurmurHash3, Knuth)."""


def is_exact(request: ChatRequest) -> bool:
    """Whether the same request must get the same answer (contract.md §16)."""
    return request.temperature == 0 or request.seed is not None


def sampling(request: ChatRequest, prompt: Sequence[int], vocabulary: Vocabulary, context: int, shape: Shape) -> Body:
    """Everything that is the same for all choices; prompt, place, limit and seed are not."""
    frequency, presence = request.frequency_penalty or 0.0, request.presence_penalty or 0.0
    body: dict[str, Any] = {
        **OFF,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "frequency_penalty": frequency,
        "presence_penalty": presence,
        "repeat_last_n": context if frequency or presence else 0,
    }
    if bias := _bias(request, prompt, vocabulary, frequency, presence):
        body["logit_bias"] = [[token, value] for token, value in sorted(bias.items())]
    if shape.grammar is not None:
        body["grammar"] = shape.grammar
    if shape.preserved:
        body["preserved_tokens"] = shape.preserved
    if request.logprobs or request.stop_sequences or shape.must_count:
        body["timings_per_token"] = True  # how many tokens were sampled is told with each
    if request.logprobs:
        body["n_probs"] = max(1, request.top_logprobs or 0)
    return body


def _bias(
    request: ChatRequest, prompt: Sequence[int], vocabulary: Vocabulary, frequency: float, presence: float
) -> dict[int, float]:
    bias = _given_back(prompt, vocabulary, frequency, presence) if frequency or presence else {}
    for token, value in (request.logit_bias or {}).items():
        if int(token) < len(vocabulary):
            bias[int(token)] = bias.get(int(token), 0.0) + value
    return bias


def _given_back(prompt: Sequence[int], vocabulary: Vocabulary, frequency: float, presence: float) -> dict[int, float]:
    return {
        token: value
        for token, count in Counter(prompt).items()
        if (value := count * frequency + (presence if vocabulary.is_control(token) else 0.0))
    }


def engine_seed(seed: int | None, choice: int = 0, at: int = 0) -> int:
    """The engine's 32 bits for a choice of a request with this seed (int64).

    at: tokens generated when a choice is resumed; it goes on with dice of its own.
    """
    if seed is None:
        return RANDOM
    high, low = divmod((seed + choice) % 2**64, 2**SEED_BITS)
    folded = (low ^ (high * SPREAD_HIGH) ^ (at * SPREAD_AT)) % 2**SEED_BITS
    return folded if folded != RANDOM else RANDOM - 1
