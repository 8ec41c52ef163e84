"""Which tools a request offers the model, and whether it must call one: `tools` and `tool_choice`, and their deprecated
spelling `functions` and `function_call`, read once for every backend that decides by itself (contract.md §6)."""

from __future__ import annotations

from msgspec import Struct

from chatport.wire.chat import (
    AllowedToolsChoice,
    ChatRequest,
    CustomTool,
    FunctionName,
    FunctionTool,
    NamedCustom,
    NamedFunction,
    NamedTool,
    Tool,
)


class Offer(Struct, frozen=True, kw_only=True):
    """What may be called. Without tools nothing may, and the answer is text."""

    tools: tuple[Tool, ...] = ()
    """In the order they were given; functions as function tools."""
    must_call: bool = False
    named: bool = False
    """One tool was demanded by its name: exactly that is called, once."""
    several: bool = True
    """Whether an answer may hold more than one call."""
    legacy: bool = False
    """Asked for as `functions`: the reply carries a `function_call`."""

    def path(self, tool: Tool, request: ChatRequest) -> str:
        """Where the request holds the tool: `tools[0].function`, `functions[0]`."""
        if self.legacy:
            names = [function.name for function in request.functions or ()]
            return f"functions[{names.index(tool_name(tool))}]"
        kind = "custom" if isinstance(tool, CustomTool) else "function"
        return f"tools[{(request.tools or []).index(tool)}].{kind}"


def offer_of(request: ChatRequest) -> Offer:
    """What this request offers."""
    if request.tools:
        return _tools(request, tuple(request.tools))
    if request.functions:
        return _functions(request, tuple(FunctionTool(function=function) for function in request.functions))
    return Offer()


def _tools(request: ChatRequest, given: tuple[Tool, ...]) -> Offer:
    several = request.parallel_tool_calls is not False
    match request.tool_choice:
        case "none":
            return Offer()
        case NamedFunction() | NamedCustom() as named:
            tools = tuple(tool for tool in given if _is_named(tool, named))
            return Offer(tools=tools[:1], must_call=True, named=True, several=False)
        case AllowedToolsChoice(allowed_tools=allowed):
            tools = tuple(tool for tool in given if any(_is_named(tool, named) for named in allowed.tools))
            return Offer(tools=tools, must_call=allowed.mode == "required", several=several)
    return Offer(tools=given, must_call=request.tool_choice == "required", several=several)


def _functions(request: ChatRequest, given: tuple[FunctionTool, ...]) -> Offer:
    match request.function_call:
        case "none":
            return Offer()
        case FunctionName(name=name):
            tools = tuple(tool for tool in given if tool.function.name == name)
            return Offer(tools=tools[:1], must_call=True, named=True, several=False, legacy=True)
    return Offer(tools=given, several=False, legacy=True)


def tool_name(tool: Tool) -> str:
    return tool.custom.name if isinstance(tool, CustomTool) else tool.function.name


def _is_named(tool: Tool, named: NamedTool) -> bool:
    match tool, named:
        case FunctionTool(), NamedFunction():
            return tool.function.name == named.function.name
        case CustomTool(), NamedCustom():
            return tool.custom.name == named.custom.name
    return False
