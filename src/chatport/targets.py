"""Where a request may go and what that can cost: the words that policy and backends both speak."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct
from msgspec.structs import force_setattr


class Feature(StrEnum):
    """What a request may ask for beyond text in, text out. A target lists those it honours; `policy/features.py`
    refuses the others by the name of the field that asks."""

    VISION = "vision"
    AUDIO_INPUT = "audio_input"
    AUDIO_OUTPUT = "audio_output"
    FILES = "files"
    TOOLS = "tools"
    FUNCTIONS = "functions"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    LOGPROBS = "logprobs"
    LOGIT_BIAS = "logit_bias"
    CHOICES = "n"
    WEB_SEARCH = "web_search"
    MODERATION = "moderation"


EVERY_FEATURE = frozenset(Feature)


class Target(Struct, frozen=True, kw_only=True):
    """One place that can answer for a model: a backend and the name it knows the model by."""

    id: str
    """Unique in the configuration; what logs and records say."""
    backend: str
    """Key of the running backend in the runtime's table."""
    model: str
    """The name the backend knows the model by."""
    features: frozenset[Feature] = EVERY_FEATURE
    fingerprint: str = "fp_chatport"
    """`system_fingerprint` of every answer from here: stable as long as the backend's configuration is."""
    context: int | None = None
    """Tokens in the model's window, None where it is not known."""
    extra_params: Literal["reject", "drop", "forward"] = "reject"
    """What happens to a field the contract does not know."""
    priority: int = 0
    """Those with a higher number are asked when those with a lower one fail."""
    weight: float = 1.0
    """Its share of the requests among those of its priority."""
    remote: bool = False
    """Somewhere else: not part of this server's own readiness."""
    max_concurrency: int | None = None
    """Requests at the same time, None for any number."""
    price_list: str | None = None
    """What a list of prices calls its provider."""
    price_model: str | None = None
    """The entry of a list that its price is, whatever the provider and the model."""
    listed: str | None = None
    """Its entry in a list of prices; None where nothing tells it. Like the next, it follows from the others."""
    lacks: frozenset[Feature] = frozenset()
    """The features that it does not honour."""

    def __post_init__(self) -> None:
        """Tells once what every request asks for."""
        named = None if self.price_list is None else f"{self.price_list}/{self.model}"
        force_setattr(self, "listed", named if self.price_model is None else self.price_model)
        force_setattr(self, "lacks", EVERY_FEATURE - self.features)


class Bound(Struct, frozen=True, kw_only=True):
    """The most tokens one request can cost at one target, and how that was counted."""

    prompt_tokens: int
    output_tokens: int | None
    """Over all choices; None where nothing limits the target's answer."""
    counted_by: Literal["exact", "bytes"]
    """`exact`: the model's own tokenizer; `bytes`: no more tokens than UTF-8 bytes."""
    clamped: int | None = None
    """The output limit per choice, where the window left less than the request asked for."""
    prompt: tuple[int, ...] | None = None
    """The prompt's token ids, where counting meant tokenising it: the backend need not do it twice."""
