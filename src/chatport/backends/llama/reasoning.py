"""Models that think before they answer: how they show it, and how a request's `reasoning_effort` reaches them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from msgspec import Struct

from chatport.wire.chat import ReasoningEffort


class Thinking(Struct, frozen=True):
    """The marks around a model's thoughts."""

    opens: str
    closes: str


MARKS: Final = (
    Thinking("<think>", "</think>"),  # DeepSeek, Qwen 3, SmolLM 3, GLM
    Thinking("[THINK]", "[/THINK]"),  # Magistral
    Thinking("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    Thinking("<seed:think>", "</seed:think>"),  # Seed-OSS
)
"""A model whose template shows one of these pairs thinks in it."""


def thinking_of(template: str) -> Thinking | None:
    """How a model shows its thoughts; None for one that answers at once."""
    return next((marks for marks in MARKS if marks.closes in template), None)


LITTLE: Final = ("none", "minimal")
"""Efforts for which a model that can only think or not does not."""


def _thinks(effort: ReasoningEffort) -> bool:
    return effort not in LITTLE


def _in_three_steps(effort: ReasoningEffort) -> str:
    if effort in LITTLE:
        return "low"
    return effort if effort in ("low", "medium") else "high"


SWITCHES: Final[dict[str, Callable[[ReasoningEffort], object]]] = {
    "enable_thinking": _thinks,  # Qwen 3, SmolLM 3, GLM
    "thinking": _thinks,  # DeepSeek 3.1, Granite
    "reasoning_effort": _in_three_steps,  # gpt-oss
}
"""Variables by which templates switch thinking, and what they are set to."""


def switched(effort: ReasoningEffort | None, variables: Collection[str]) -> dict[str, Any]:
    """What a template with these variables is given; nothing without an effort: then its own default holds."""
    if effort is None:
        return {}
    return {name: value(effort) for name, value in SWITCHES.items() if name in variables}
