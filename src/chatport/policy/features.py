"""What a request asks for beyond text, held against what its target can do (design.md, decision 5).

`ASKED` says of each feature where a request asks for it. What a target can't honour is refused by the name of that
field, never dropped in silence; what the contract says to accept and ignore (a reasoning effort, a prediction) asks for
nothing here. History counts: a conversation with calls in it can't be continued by a model that knows none.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from chatport.targets import Feature, Target
from chatport.wire.chat import (
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    FunctionMessage,
    ImagePart,
    ToolMessage,
    UserMessage,
)
from chatport.wire.errors import Unsupported, quote

Where = Callable[[ChatRequest], str | None]
"""The path of the field that asks for a feature, None where nothing does."""


class Asked(Struct, frozen=True):
    """How one feature is asked for, and how it is refused."""

    what: str
    """Begins the sentence of the refusal; plural."""
    where: Where
    code: str


def _part(kind: type[ImagePart | AudioPart | FilePart]) -> Where:
    def where(request: ChatRequest) -> str | None:
        for i, message in enumerate(request.messages):
            if isinstance(message, UserMessage) and not isinstance(message.content, str):
                for j, part in enumerate(message.content):
                    if isinstance(part, kind):
                        return f"messages[{i}].content[{j}]"
        return None

    return where


def _audio_output(request: ChatRequest) -> str | None:
    if request.modalities and "audio" in request.modalities:
        return "modalities"
    for i, message in enumerate(request.messages):
        if isinstance(message, AssistantMessage) and message.audio is not None:
            return f"messages[{i}].audio"
    return None


def _tools(request: ChatRequest) -> str | None:
    if request.tools and request.tool_choice != "none":
        return "tools"
    for i, message in enumerate(request.messages):
        if isinstance(message, AssistantMessage) and message.tool_calls:
            return f"messages[{i}].tool_calls"
        if isinstance(message, ToolMessage):
            return f"messages[{i}].role"
    return None


def _functions(request: ChatRequest) -> str | None:
    if request.functions and request.function_call != "none":
        return "functions"
    for i, message in enumerate(request.messages):
        if isinstance(message, AssistantMessage) and message.function_call is not None:
            return f"messages[{i}].function_call"
        if isinstance(message, FunctionMessage):
            return f"messages[{i}].role"
    return None


def _format(kind: str) -> Where:
    def where(request: ChatRequest) -> str | None:
        return "response_format" if request.response_format and request.response_format.kind == kind else None

    return where


def _field(name: str, asks: Callable[[ChatRequest], object]) -> Where:
    return lambda request: name if asks(request) else None


PARAMETER, VALUE = "unsupported_parameter", "unsupported_value"

ASKED: dict[Feature, Asked] = {
    Feature.VISION: Asked("Images", _part(ImagePart), VALUE),
    Feature.AUDIO_INPUT: Asked("Audio inputs", _part(AudioPart), VALUE),
    Feature.FILES: Asked("Files", _part(FilePart), VALUE),
    Feature.AUDIO_OUTPUT: Asked("Audio outputs", _audio_output, VALUE),
    Feature.CHOICES: Asked("Several choices", _field("n", lambda request: request.choices > 1), VALUE),
    Feature.LOGPROBS: Asked("Logprobs", _field("logprobs", lambda request: request.logprobs), PARAMETER),
    Feature.LOGIT_BIAS: Asked("Logit biases", _field("logit_bias", lambda request: request.logit_bias), PARAMETER),
    Feature.TOOLS: Asked("Tools", _tools, PARAMETER),
    Feature.FUNCTIONS: Asked("Functions", _functions, PARAMETER),
    Feature.JSON_OBJECT: Asked("JSON objects", _format("json_object"), VALUE),
    Feature.JSON_SCHEMA: Asked("JSON schemas", _format("json_schema"), VALUE),
    Feature.WEB_SEARCH: Asked(
        "Web searches", _field("web_search_options", lambda request: request.web_search_options is not None), PARAMETER
    ),
    Feature.MODERATION: Asked(
        "Moderations", _field("moderation", lambda request: request.moderation is not None), PARAMETER
    ),
}


def refuse_unsupported(request: ChatRequest, target: Target) -> None:
    """Raises Unsupported, naming the field, when the request asks for what the target does not list."""
    if not target.lacks:
        return
    for feature, asked in ASKED.items():
        if feature not in target.lacks:
            continue
        param = asked.where(request)
        if param is not None:
            raise Unsupported(_refusal(asked, param, request, target), param=param, code=asked.code)


def _refusal(asked: Asked, param: str, request: ChatRequest, target: Target) -> str:
    can = ", ".join(["text", *sorted(target.features)])
    return (
        f"Unsupported: '{param}'. {asked.what} are not supported by the model {quote(request.model)}, "
        f"which supports: {can}."
    )
