"""Rules between fields (contract.md §5-§8): what no single field's type can say.

`check_request` is the list: a field's rule runs where the field was given. Each reads the typed request and raises
InvalidRequest. What a model can or can't do is no rule of the format; `policy/features.py` sees to that.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from chatport.wire.chat import (
    NULL,
    AllowedToolsChoice,
    AssistantMessage,
    AudioPart,
    ChatRequest,
    CustomTool,
    Function,
    FunctionName,
    FunctionTool,
    GrammarFormat,
    ImagePart,
    JSONSchemaFormat,
    Message,
    NamedFunction,
    NamedTool,
    RefusalPart,
    ResponseFormat,
    TextPart,
    Tool,
    ToolChoice,
    ToolMessage,
    UserMessage,
    UserPart,
)
from chatport.wire.errors import InvalidRequest, quote
from chatport.wire.fields import missing, too_many_items
from chatport.wire.strict import Patterns, SchemaSite, check_parameters, check_strict, load_schema


class DecodeLimits(Struct, frozen=True):
    """How much of a request is looked at. What these leave open, the limit on the body's bytes bounds."""

    max_depth: int = 64
    """Levels of arrays and objects in a caller's schema, whose readers are recursive. Everything else has the depth its
    type has, or is skipped unread."""
    max_messages: int = 4096
    """Twice what OpenAI takes; far beyond what fits into any model's window."""


DEFAULT_LIMITS = DecodeLimits()

NAMES_SHOWN = 8
"""Names of tools that a message lists as the allowed ones."""


class Allowance(Struct, frozen=True):
    """What the rules of one request may still look at."""

    limits: DecodeLimits
    patterns: Patterns


def check_request(request: ChatRequest, limits: DecodeLimits) -> None:
    """Raises InvalidRequest for the first rule broken."""
    _messages(request.messages, limits)
    if request.stream_options is not None:
        _stream_options(request)
    if request.top_logprobs is not None:
        _top_logprobs(request)
    if (
        request.tools is not None
        or request.tool_choice is not None
        or request.functions is not None
        or request.function_call is not None
        or request.response_format is not None
    ):
        _calls_and_form(request, Allowance(limits, Patterns()))
    if request.modalities is not None:
        _modalities(request.modalities, request)


def _calls_and_form(request: ChatRequest, allowance: Allowance) -> None:
    """What may be called, and the answer's form: where a caller's schemas and patterns are."""
    if request.tools is not None:
        _tools(request.tools, allowance)
    if request.tool_choice is not None:
        _tool_choice(request.tool_choice, request.tools)
    if request.functions is not None:
        _functions(request, allowance)
    if request.function_call is not None:
        _function_call(request)
    if request.response_format is not None:
        _response_format(request.response_format, request, allowance)


def _invalid(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="invalid_value")


# --- Messages (§5) ---------------------------------------------------------------------------------------------------


def _messages(messages: list[Message], limits: DecodeLimits) -> None:
    if len(messages) > limits.max_messages:
        raise too_many_items("messages", limits.max_messages, len(messages))
    calling = False
    for index, message in enumerate(messages):
        # Not `isinstance`: where it says no, it costs ten times as much.
        if type(message) is UserMessage:
            if not isinstance(message.content, str):
                _user_parts(message.content, index)
        elif type(message) is AssistantMessage:
            _assistant_content(message, index)
            calling = calling or message.tool_calls is not None
        elif type(message) is ToolMessage:
            calling = True
    if calling:
        _calls_and_answers(messages)


def _user_parts(parts: list[UserPart], index: int) -> None:
    for place, part in enumerate(parts):
        if isinstance(part, ImagePart):
            _image_url(part.image_url.url, f"messages[{index}].content[{place}].image_url.url")
        elif isinstance(part, AudioPart):
            _base64(part.input_audio.data, f"messages[{index}].content[{place}].input_audio.data")


IMAGE_URL = re.compile(r"https?://[^\s/?#]|data:[^,]*,.", re.IGNORECASE)


def _image_url(url: str, param: str) -> None:
    if not IMAGE_URL.match(url):
        raise _invalid(
            param,
            f"Invalid '{param}': expected an http or https URL, or a data URL with the image, but got {quote(url)}.",
        )


def _base64(data: str, param: str) -> None:
    try:
        size = len(a2b_base64(data, strict_mode=True))
    except ValueError as exc:
        raise _invalid(
            param, f"Invalid '{param}': expected base64-encoded audio, but got {quote(data)}: {exc}."
        ) from None
    if size == 0:
        raise _invalid(param, f"Invalid '{param}': expected base64-encoded audio, but got an empty string.")


def _assistant_content(message: AssistantMessage, index: int) -> None:
    content = message.content
    if content is None and not _says_something(message):
        raise missing(f"messages[{index}].content")
    if isinstance(content, list) and len(content) > 1 and any(isinstance(part, RefusalPart) for part in content):
        raise _invalid(
            f"messages[{index}].content",
            f"Invalid 'messages[{index}].content': expected any number of 'text' parts or exactly one 'refusal' part, "
            f"but got {len(content)} parts with a 'refusal' among them.",
        )


def _says_something(message: AssistantMessage) -> bool:
    """What excuses an assistant message from content. Reasoning too, which an answer that was cut may end with (§9)."""
    told = (message.tool_calls, message.function_call, message.refusal, message.audio)
    return any(each is not None for each in (*told, message.reasoning_content, message.reasoning))


def _calls_and_answers(messages: list[Message]) -> None:
    """Each call is answered before the next message that is no answer, and each answer has its call."""
    asked: dict[str, None] = {}
    open_calls: dict[str, None] = {}
    for index, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in asked:
                raise _stray_answer(message, index)
            open_calls.pop(message.tool_call_id, None)
            continue
        if open_calls:
            raise _unanswered(open_calls, index)
        asked = {}
        if isinstance(message, AssistantMessage) and message.tool_calls is not None:
            asked = dict.fromkeys(call.id for call in message.tool_calls)
            open_calls = dict(asked)
    if open_calls:
        raise _unanswered(open_calls, len(messages) - 1)


def _stray_answer(message: ToolMessage, index: int) -> InvalidRequest:
    return _invalid(
        f"messages[{index}].role",
        f"Invalid 'messages[{index}]': a message with role 'tool' must answer a call of the assistant message before. "
        f"No call there has the id {quote(message.tool_call_id)}.",
    )


def _unanswered(open_calls: Mapping[str, None], index: int) -> InvalidRequest:
    ids = _listed(list(open_calls))
    return _invalid(
        f"messages[{index}].role",
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {ids}.",
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(map(quote, names[:NAMES_SHOWN])) + more


# --- Tools (§6) ------------------------------------------------------------------------------------------------------


def _tools(tools: list[Tool], allowance: Allowance) -> None:
    for index, tool in enumerate(tools):
        if isinstance(tool, FunctionTool):
            _function(tool.function, f"tools[{index}].function.parameters", allowance)
        else:
            _custom(tool, f"tools[{index}].custom.format.grammar.definition", allowance.patterns)


def _functions(request: ChatRequest, allowance: Allowance) -> None:
    if request.tools is not None:
        raise _invalid("functions", "'functions' can't be used together with 'tools', which takes its place.")
    for index, function in enumerate(request.functions or ()):
        _function(function, f"functions[{index}].parameters", allowance)


def _function(function: Function, param: str, allowance: Allowance) -> None:
    if function.parameters == NULL:
        return
    site = SchemaSite(f"function '{function.name}'", param, param, "invalid_function_parameters")
    schema = load_schema(function.parameters, site, allowance.limits.max_depth)
    check_parameters(schema, site)
    if function.strict:
        check_strict(schema, site, allowance.patterns)


def _custom(tool: CustomTool, param: str, patterns: Patterns) -> None:
    form = tool.custom.format
    if not isinstance(form, GrammarFormat) or form.grammar.syntax != "regex":
        return
    if reason := patterns.fault(form.grammar.definition):
        raise _invalid(
            param,
            f"Invalid grammar for custom tool '{tool.custom.name}': "
            f"the regex {quote(form.grammar.definition)} is refused: {reason}.",
        )


def _tool_choice(choice: ToolChoice, tools: list[Tool] | None) -> None:
    if choice in ("none", "auto"):
        return
    if tools is None:
        raise _invalid("tool_choice", "Invalid value for 'tool_choice': it is only allowed when 'tools' are specified.")
    if isinstance(choice, str):
        return
    named = choice.allowed_tools.tools if isinstance(choice, AllowedToolsChoice) else [choice]
    if not named:
        raise _invalid("tool_choice", "Invalid value for 'tool_choice': 'allowed_tools.tools' is empty.")
    offered = dict.fromkeys(map(_offered, tools))
    for tool in named:
        if _chosen(tool) not in offered:
            kind, name = _chosen(tool)
            raise _not_offered(
                "tool_choice", f"{kind} tool", name, [name for of, name in offered if of == kind], "tools"
            )


def _offered(tool: Tool) -> tuple[str, str]:
    return ("function", tool.function.name) if isinstance(tool, FunctionTool) else ("custom", tool.custom.name)


def _chosen(tool: NamedTool) -> tuple[str, str]:
    return ("function", tool.function.name) if isinstance(tool, NamedFunction) else ("custom", tool.custom.name)


def _not_offered(param: str, kind: str, name: str, offered: list[str], where: str) -> InvalidRequest:
    known = _listed(offered) or "none"
    return _invalid(
        param, f"Invalid value for '{param}': no {kind} named {quote(name)} is in '{where}'. Those there: {known}."
    )


def _function_call(request: ChatRequest) -> None:
    choice = request.function_call
    if not isinstance(choice, FunctionName):
        return
    offered = [function.name for function in request.functions or ()]
    if choice.name not in offered:
        raise _not_offered("function_call", "function", choice.name, offered, "functions")


# --- The answer's form (§7, §8) --------------------------------------------------------------------------------------


def _response_format(form: ResponseFormat, request: ChatRequest, allowance: Allowance) -> None:
    if form.kind == "text":
        return
    if form.kind == "json_object":
        _asks_for_json(request)
    elif form.json_schema is None:
        raise missing("response_format.json_schema")
    else:
        _json_schema(form.json_schema, allowance)


def _json_schema(form: JSONSchemaFormat, allowance: Allowance) -> None:
    path = "response_format.json_schema.schema"
    if form.schema == NULL:
        if form.strict:
            raise missing(path)
        return
    site = SchemaSite(f"response_format '{form.name}'", path, "response_format", "invalid_value")
    schema = load_schema(form.schema, site, allowance.limits.max_depth)
    if form.strict:
        check_strict(schema, site, allowance.patterns)


LETTERS = re.compile("json", re.IGNORECASE | re.ASCII)


def _asks_for_json(request: ChatRequest) -> None:
    """A model that is only held to JSON, and never told, may write white space until its limit."""
    if not any(LETTERS.search(text) for message in request.messages for text in _texts(message)):
        raise _invalid(
            "messages",
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
        )


def _texts(message: Message) -> Iterator[str]:
    content = message.content
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, TextPart):
            yield part.text


def _stream_options(request: ChatRequest) -> None:
    if not request.stream:
        raise _invalid("stream_options", "The 'stream_options' parameter is only allowed when 'stream' is true.")


def _top_logprobs(request: ChatRequest) -> None:
    if not request.logprobs:
        raise _invalid("top_logprobs", "The 'top_logprobs' parameter is only allowed when 'logprobs' is true.")


def _modalities(modalities: Sequence[str], request: ChatRequest) -> None:
    if "audio" in modalities and request.audio is None:
        raise InvalidRequest(
            "Missing required parameter: 'audio', which 'modalities' with 'audio' asks for.",
            param="audio",
            code="missing_required_parameter",
        )
