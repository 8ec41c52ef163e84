"""Tokens that nobody has counted: the most a prompt can have, and an estimate where an upstream says nothing."""

from __future__ import annotations

from msgspec import Raw, json

from chatport.targets import Bound
from chatport.wire.chat import AssistantMessage, ChatRequest, Message, TextPart, ToolMessage
from chatport.wire.tally import BYTES_PER_TOKEN, Estimate, Tally

MESSAGE_TOKENS = 16
"""Per message, for the role and the marks around it: the longest known template takes 9."""

TEMPLATE_TOKENS = 64
"""Once, for what a template adds by itself."""

PART_TOKENS = 16_384
"""For a part that is no text: the largest image of known models takes as many."""

_encode = json.Encoder().encode


def bound_of(request: ChatRequest) -> Bound:
    """The most it can cost: no tokenizer makes more tokens of a text than it has bytes."""
    prompt = TEMPLATE_TOKENS
    for message in request.messages:
        prompt += _message_bound(message)
    if request.tools or request.functions or request.response_format:
        prompt += len(_encode([request.tools, request.functions, request.response_format]))
    limit = request.output_limit
    output = None if limit is None else limit * request.choices
    return Bound(prompt_tokens=prompt, output_tokens=output, counted_by="bytes")


def _message_bound(message: Message) -> int:
    content = message.content
    bound = MESSAGE_TOKENS
    if isinstance(content, str):
        bound += _size(content)
    elif content is not None:
        bound += sum(_size(part.text) if isinstance(part, TextPart) else PART_TOKENS for part in content)
    if message.name is not None:
        bound += _size(message.name)
    if type(message) is AssistantMessage:  # where `isinstance` says no, it costs ten times as much
        bound += _said_bound(message)
    elif type(message) is ToolMessage:
        bound += _size(message.tool_call_id)
    return bound


def _said_bound(message: AssistantMessage) -> int:
    """Of what an answer has beside its content."""
    bound = 0
    for said in (
        message.tool_calls,
        message.function_call,
        message.refusal,
        message.reasoning_content,
        message.reasoning,
    ):
        if said is not None:
            bound += len(_encode(said))
    return bound


def _size(text: str) -> int:
    """Bytes of UTF-8. A view of it is made once and stays with the text, where the encoder of what is sent finds it."""
    return len(text) if text.isascii() else memoryview(Raw(text)).nbytes


def estimated(tally: Tally, bound: Bound) -> Estimate:
    """What an answer used whose upstream does not say it: the prompt by its bound, the answer by its length."""
    prompt, completion = max(1, bound.prompt_tokens // BYTES_PER_TOKEN), tally.tokens
    return Estimate(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
