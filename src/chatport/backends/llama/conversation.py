"""A request's messages and tools, as chat templates know them.

A template that writes tools, calls and results itself is given them, since its model was trained on just that. Any
other gets them as text: a section of the system message that tells the tools and how they are called, calls as the
model would write them, results as what the user says. So does every request with custom tools, which no template knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct, to_builtins

from chatport.backends.llama.calls import CallFormat, custom_call
from chatport.wire.chat import (
    NULL,
    AssistantMessage,
    ChatRequest,
    CustomTool,
    CustomToolCall,
    FunctionMessage,
    FunctionTool,
    FunctionToolCall,
    GrammarFormat,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolMessage,
)
from chatport.wire.errors import Unsupported, quote
from chatport.wire.tools import Offer

Plain = dict[str, Any]
"""A message as templates know it: `role` is one of system, user, assistant, tool; `content` is text."""

ROLES: Final = {"developer": "system", "function": "tool"}
"""What a role is called where templates know fewer (contract.md §16: developer counts as system)."""
LEGACY_CALL: Final = "function_call"
"""Stands for the id of a deprecated `function_call`, which has none."""


class Abilities(Struct, frozen=True, kw_only=True):
    """What a template can write by itself."""

    tools: bool = False
    """Tools, calls of them in earlier answers, and their results."""
    objects: bool = True
    """It wants a call's arguments as an object; else as a string of JSON."""
    several: bool = True
    """More than one call in a message."""
    system: bool = True
    """System messages; where not, the user says what they say."""
    parts: bool = False
    """It wants content as a list of parts, as models do that see images."""


class Conversation(Struct, frozen=True):
    """What a template is given."""

    messages: list[Plain]
    tools: list[Plain] | None


def converse(
    request: ChatRequest, offer: Offer, form: CallFormat, abilities: Abilities, system_prompt: str | None
) -> Conversation:
    """The conversation so far. Raises Unsupported for parts that are not text."""
    functions = [tool for tool in offer.tools if isinstance(tool, FunctionTool)]
    customs = [tool for tool in offer.tools if isinstance(tool, CustomTool)]
    native = abilities.tools and not customs and not _has_custom_calls(request)
    messages = list((_Native(abilities) if native else _AsText(form)).messages(request.messages))
    told = [] if native or not offer.tools else [_tools_told(functions, customs, form)]
    messages = _with_system(messages, system_prompt, [*told, *_format_told(request)])
    if not abilities.system:
        messages = _said_by_the_user(messages)
    return Conversation(
        in_parts(messages) if abilities.parts else messages,
        list(map(_as_template_tool, functions)) if native and functions else None,
    )


def in_parts(messages: Sequence[Plain]) -> list[Plain]:
    """The messages with their content as a list of one text part."""
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def _said_by_the_user(messages: Sequence[Plain]) -> list[Plain]:
    """System messages as the beginning of the next thing that the user says."""
    said: list[Plain] = []
    held: list[str] = []
    for message in messages:
        if message["role"] == "system":
            held.append(message["content"])
        elif message["role"] == "user" and held:
            said.append({**message, "content": "\n\n".join([*held, message["content"]])})
            held.clear()
        else:
            said.append(message)
    return [*said, {"role": "user", "content": "\n\n".join(held)}] if held else said


def _with_system(messages: list[Plain], system_prompt: str | None, told: Sequence[str]) -> list[Plain]:
    """What the model is told stands in the first system message; the configured prompt only where there is none."""
    first = next((message for message in messages if message["role"] == "system"), None)
    if first is None and (system_prompt is not None or told):
        first = {"role": "system", "content": system_prompt or ""}
        messages = [first, *messages]
    if first is not None:
        first["content"] = "\n\n".join(text for text in (first["content"], *told) if text)
    return messages


def _has_custom_calls(request: ChatRequest) -> bool:
    return any(isinstance(call, CustomToolCall) for message in request.messages for call in _calls(message))


# --- Tools and formats, told in words --------------------------------------------------------------------------------


def _as_template_tool(tool: FunctionTool) -> Plain:
    function = {"name": tool.function.name, "description": tool.function.description or ""}
    return {"type": "function", "function": {**function, "parameters": _parameters(tool)}}


def _parameters(tool: FunctionTool) -> Plain:
    if tool.function.parameters == NULL:
        return {"type": "object", "properties": {}}
    parameters: Plain = msgspec.json.decode(tool.function.parameters)
    return {"type": "object", "properties": {}, **parameters}


def _tools_told(functions: Sequence[FunctionTool], customs: Sequence[CustomTool], form: CallFormat) -> str:
    """The section of the system message that stands in for a template's own."""
    lines = ["# Tools", ""]
    if functions:
        lines += ["You can call these functions:", *(_json(_as_template_tool(tool)) for tool in functions), ""]
        lines += ["To call one, write nothing but its name and arguments, in this form:"]
        lines += [form.written("NAME", '{"ARGUMENT": VALUE}'), ""]
    if customs:
        lines += ["You can send text to these tools:", *map(_custom_told, customs), ""]
        lines += ["To use one, write nothing but its name and the text, in this form:"]
        lines += [custom_call("NAME", "TEXT"), ""]
    return "\n".join([*lines, "What comes back is given to you afterwards. Answer directly where no tool is needed."])


def _custom_told(tool: CustomTool) -> str:
    told = f"- {tool.custom.name}: {tool.custom.description or ''}".rstrip(": ")
    form = tool.custom.format
    if not isinstance(form, GrammarFormat):
        return told
    return f"{told}\n  The text must match this {form.grammar.syntax} grammar:\n{form.grammar.definition}"


def _format_told(request: ChatRequest) -> list[str]:
    form = request.response_format
    if form is None or form.json_schema is None or form.kind != "json_schema":
        return []
    about = f" ({form.json_schema.description})" if form.json_schema.description else ""
    schema = "{}" if form.json_schema.schema == NULL else bytes(form.json_schema.schema).decode()
    return [f"Answer with JSON and nothing else: {form.json_schema.name}{about}, by this JSON schema:\n{schema}"]


# --- Messages --------------------------------------------------------------------------------------------------------


class _Native:
    """For a template that writes calls and results itself."""

    def __init__(self, abilities: Abilities) -> None:
        self._abilities = abilities
        self._ids: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def messages(self, messages: Sequence[Message]) -> Iterator[Plain]:
        for index, message in enumerate(messages):
            plain = _as_plain(index, message)
            calls = _calls(message)
            if calls:
                yield from self._with_calls(plain, calls)
            elif isinstance(message, ToolMessage | FunctionMessage):
                yield self._result(plain, _answered(message))
            else:
                yield plain

    def _with_calls(self, plain: Plain, calls: Sequence[ToolCall]) -> Iterator[Plain]:
        written = [self._call(call) for call in calls if isinstance(call, FunctionToolCall)]
        groups = [written] if self._abilities.several else [[call] for call in written]
        for position, group in enumerate(groups):
            yield {**plain, "content": "" if position else plain["content"], "tool_calls": group}

    def _call(self, call: FunctionToolCall) -> Plain:
        name, arguments = call.function.name, call.function.arguments
        # Nine letters and digits: Mistral's templates take no other ids.
        self._ids[call.id] = f"call{len(self._ids) % 100_000:05}"
        self._names[call.id] = name
        given = _as_object(arguments) if self._abilities.objects else arguments
        return {"id": self._ids[call.id], "type": "function", "function": {"name": name, "arguments": given}}

    def _result(self, plain: Plain, call_id: str) -> Plain:
        named = {"name": self._names[call_id]} if call_id in self._names else {}
        return {**plain, **named, "tool_call_id": self._ids.get(call_id, call_id)}


class _AsText:
    """For a template that knows neither calls nor results: calls are what the assistant says, results what the user
    does, together with what follows of the user's own, since many such templates want the two to take turns."""

    def __init__(self, form: CallFormat) -> None:
        self._form = form

    def messages(self, messages: Sequence[Message]) -> Iterator[Plain]:
        heard: Plain | None = None
        for index, message in enumerate(messages):
            plain = _as_plain(index, message)
            if isinstance(message, ToolMessage | FunctionMessage):
                plain = {"role": "user", "content": f"<tool_response>\n{plain['content']}\n</tool_response>"}
                heard = _joined(heard, plain)
            elif heard is not None and plain["role"] == "user":
                yield _joined(heard, plain)
                heard = None
            else:
                if heard is not None:
                    yield heard
                    heard = None
                yield self._with_calls(plain, _calls(message))
        if heard is not None:
            yield heard

    def _with_calls(self, plain: Plain, calls: Sequence[ToolCall]) -> Plain:
        said = [plain["content"], *map(self._written, calls)]
        return {**plain, "content": "\n".join(text for text in said if text)}

    def _written(self, call: ToolCall) -> str:
        if isinstance(call, CustomToolCall):
            return custom_call(call.custom.name, call.custom.input)
        return self._form.written(call.function.name, call.function.arguments or "{}")


def _joined(heard: Plain | None, plain: Plain) -> Plain:
    return plain if heard is None else {**heard, "content": f"{heard['content']}\n{plain['content']}"}


def _calls(message: Message) -> Sequence[ToolCall]:
    if not isinstance(message, AssistantMessage):
        return ()
    if message.function_call is not None:
        return [FunctionToolCall(id=LEGACY_CALL, function=message.function_call)]
    return message.tool_calls or ()


def _answered(message: ToolMessage | FunctionMessage) -> str:
    return message.tool_call_id if isinstance(message, ToolMessage) else LEGACY_CALL


def _as_object(arguments: str) -> Any:
    """What a model wrote need not be JSON, least of all where it was cut."""
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _as_plain(index: int, message: Message) -> Plain:
    plain: Plain = to_builtins(message)
    plain["role"] = ROLES.get(plain["role"], plain["role"])
    plain["content"] = _text(index, message.content)
    if isinstance(message, AssistantMessage):
        plain["content"] = plain["content"] or message.refusal or ""
        for key in ("tool_calls", "function_call", "refusal", "audio", "reasoning", "reasoning_content"):
            plain.pop(key, None)
        if thoughts := message.reasoning_content or message.reasoning:
            plain["reasoning_content"] = thoughts
    return plain


def _text(index: int, content: str | Sequence[Part] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(_part_text(f"messages[{index}].content[{place}]", part) for place, part in enumerate(content))


def _part_text(where: str, part: Part) -> str:
    match part:
        case TextPart():
            return part.text
        case RefusalPart():
            return part.refusal
    kind = part.__struct_config__.tag
    raise Unsupported(
        f"This model reads text only; {where} has the type {quote(kind)}.", param=where, code="unsupported_value"
    )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
