"""What the answer to a request may look like on one model: told to the model, held by a grammar, read, and checked.

The one place where a request's tools, formats and effort meet what a model's template can do.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct, structs

from chatport.backends.llama.calls import CUSTOM_CLOSES, CallFormat, FormatName, format_of
from chatport.backends.llama.compiler import Uncompilable, compiled
from chatport.backends.llama.conversation import converse
from chatport.backends.llama.grammar import Callee, Demand, IdOf, grammar_of, input_rule
from chatport.backends.llama.promises import Strict, json_fault
from chatport.backends.llama.reader import Call, Reading
from chatport.backends.llama.reasoning import switched, thinking_of
from chatport.backends.llama.schemas import NOTHING, OBJECT, guided
from chatport.backends.llama.template import ChatTemplate, Segment
from chatport.wire.chat import NULL, ChatRequest, CustomTool, FinishReason, FunctionTool, GrammarFormat, Tool
from chatport.wire.errors import InternalError, InvalidRequest, quote
from chatport.wire.tools import Offer, offer_of, tool_name

log = logging.getLogger("chatport")

SHOWN: Final = 2000
"""Characters of a grammar that stand in the log when it was not held."""


class Draft(Struct, frozen=True):
    """A request as far as nothing is compiled yet: what the model reads, and what it is offered."""

    request: ChatRequest
    offer: Offer
    prompt: list[Segment]


class Shape(Struct, frozen=True, kw_only=True):
    """How one answer is made and read."""

    grammar: str | None
    reading: Reading
    preserved: list[str]
    """Control tokens whose spelling the engine must not swallow."""
    offer: Offer
    json: bool = False
    """The text is JSON."""
    strict: Strict | None = None
    arguments: dict[str, Strict] = {}
    """By the name of a strict function."""

    @property
    def must_count(self) -> bool:
        """Whether tokens must be counted as they come: the reader may end the answer, or thoughts be counted apart."""
        return self.reading.functions or self.reading.customs or self.reading.thinking is not None

    def ended(self, calls: Sequence[Call]) -> FinishReason:
        """How an answer with these calls ended, where neither a limit nor a stop sequence cut it."""
        if not calls:
            return "stop"
        if self.offer.legacy:
            return "function_call"
        return "stop" if self.offer.named else "tool_calls"

    def check(self, text: str, calls: Sequence[Call]) -> None:
        """Raises InternalError where the engine has not held a whole answer to the grammar."""
        fault = self._fault(text, calls)
        if fault is not None:
            self.broken(fault)

    def broken(self, fault: str) -> None:
        """Says in the log what was promised and not held, and raises InternalError."""
        log.error("the engine did not hold its grammar: %s; the grammar: %s", fault, (self.grammar or "")[:SHOWN])
        raise InternalError("The model's answer does not have the form that was promised.")

    def _fault(self, text: str, calls: Sequence[Call]) -> str | None:
        if not calls:
            if self.offer.must_call:
                return "no tool was called"
            return json_fault(text, self.strict) if self.json else None
        if not all(call.whole for call in calls):
            return "a call is not whole, and nothing cut it"
        faults = (json_fault(call.text, self.arguments.get(call.name)) for call in calls if not call.custom)
        return next((fault for fault in faults if fault is not None), None)


class Shaper:
    """Makes the shapes of answers for one model. `of` raises InvalidRequest or Unsupported, naming the field."""

    def __init__(
        self, template: ChatTemplate, id_of: IdOf, *, system_prompt: str | None, form: FormatName | None
    ) -> None:
        self._template = template
        self._id_of = id_of
        self._system_prompt = system_prompt
        self._form: CallFormat = format_of(template.text, template.call, form)
        self._thinking = thinking_of(template.text)
        self._control = template.control
        # A template that writes calls in a form that no row has is not asked to: its model would write them so too.
        knows = self._form.stands_in(template.call)
        self._abilities = template.abilities if knows else structs.replace(template.abilities, tools=False)

    def draft(self, request: ChatRequest) -> Draft:
        """What the model reads. Nothing is compiled yet, so that a prompt which is too long costs no more than this."""
        offer = offer_of(request)
        conversation = converse(request, offer, self._form, self._abilities, self._system_prompt)
        prompt = self._template.render(conversation, **switched(request.reasoning_effort, self._template.variables))
        return Draft(request, offer, prompt)

    def shape(self, draft: Draft) -> Shape:
        """Compiles what the answer is held to: milliseconds, for large schemas hundreds; see `compiler.py`."""
        request, offer, prompt = draft.request, draft.offer, draft.prompt
        self._refuse_control_tokens(request, offer)
        form, strict = _json_form(request)
        demand = Demand(
            tools=[_callee(tool, offer, request) for tool in offer.tools],
            must_call=offer.must_call,
            several=offer.several and not offer.named,
            schema=form,
            thinking=self._thinking,
            thinks_already=self._thinks_already(prompt),
        )
        reading = self._reading(demand, request)
        return Shape(
            grammar=self._grammar(demand),
            reading=reading,
            preserved=self._preserved(reading),
            offer=offer,
            json=form is not None,
            strict=strict,
            arguments={
                tool.function.name: Strict(bytes(tool.function.parameters))
                for tool in offer.tools
                if isinstance(tool, FunctionTool) and tool.function.strict and tool.function.parameters != NULL
            },
        )

    def _thinks_already(self, prompt: Sequence[Segment]) -> bool:
        end = prompt[-1].text.rstrip() if prompt else ""
        return self._thinking is not None and end.endswith(self._thinking.opens)

    def _grammar(self, demand: Demand) -> str | None:
        grammar = grammar_of(demand, self._form, self._id_of)
        if grammar is not None:
            try:
                compiled(grammar)
            except Uncompilable as exc:
                param = "tools" if demand.tools else "response_format"
                raise InvalidRequest(f"Invalid '{param}': together they can't be compiled: {exc}", param=param) from exc
        return grammar

    def _reading(self, demand: Demand, request: ChatRequest) -> Reading:
        return Reading(
            form=self._form,
            functions=any(tool.schema is not None for tool in demand.tools),
            customs=any(tool.schema is None for tool in demand.tools),
            several=demand.several,
            thinking=demand.thinking,
            thinks_already=demand.thinks_already,
            stops=request.stop_sequences,
            must_call=demand.must_call,
        )

    def _refuse_control_tokens(self, request: ChatRequest, offer: Offer) -> None:
        """What a grammar demands, the model writes by whatever tokens spell it: a control token among them would end
        its turn, or begin another's."""
        form = request.response_format
        if form is not None and form.json_schema is not None:
            self._refuse_spelled(_demanded(form.json_schema.schema), "response_format")
        for tool in offer.tools:
            if isinstance(tool, FunctionTool):
                self._refuse_spelled(_demanded(tool.function.parameters), f"{offer.path(tool, request)}.parameters")
            elif isinstance(tool.custom.format, GrammarFormat):
                self._refuse_spelled([tool.custom.format.grammar.definition], f"{offer.path(tool, request)}.format")

    def _refuse_spelled(self, texts: Iterable[str], param: str) -> None:
        found = next((match for text in texts if (match := self._control.search(text))), None)
        if found is not None:
            raise InvalidRequest(
                f"Invalid value for '{param}': it holds {quote(found[0])}, which this model can't write as text.",
                param=param,
                code="invalid_value",
            )

    def _preserved(self, reading: Reading) -> list[str]:
        marks = [*reading.triggers]
        if reading.thinking is not None:
            marks += [reading.thinking.opens, reading.thinking.closes]
        return [mark for mark in marks if self._id_of(mark) is not None]


def _json_form(request: ChatRequest) -> tuple[str | None, Strict | None]:
    """The schema that the text is held to, and the promise where there is one."""
    form = request.response_format
    if form is None or form.kind == "text":
        return None, None
    if form.kind == "json_object" or form.json_schema is None or form.json_schema.schema == NULL:
        return guided(OBJECT, strict=False), None
    schema, strict = form.json_schema.schema, bool(form.json_schema.strict)
    return _held(schema, strict=strict, param="response_format"), Strict(bytes(schema)) if strict else None


def _callee(tool: Tool, offer: Offer, request: ChatRequest) -> Callee:
    if isinstance(tool, CustomTool):
        return _custom(tool, f"{offer.path(tool, request)}.format")
    function = tool.function
    if function.parameters == NULL:
        return Callee(function.name, guided(NOTHING, strict=False))
    param = f"{offer.path(tool, request)}.parameters"
    return Callee(function.name, _held(function.parameters, strict=bool(function.strict), param=param, is_object=True))


NOTES: Final = frozenset({"title", "description", "$comment", "default", "examples"})
"""Keywords that say something about a value and demand nothing of it."""


def _demanded(schema: Raw) -> Iterator[str]:
    """The texts of a schema that may come to stand in what the model writes."""
    values: list[Any] = [msgspec.json.decode(schema)]
    while values:
        match values.pop():
            case str() as text:
                yield text
            case list() as items:
                values += items
            case dict() as entries:
                yield from entries
                values += (value for key, value in entries.items() if key not in NOTES)


_STEERING: Final = re.compile(rf"<\[|%llguidance|{re.escape(CUSTOM_CLOSES.strip())}")
"""In a client's grammar: tokens by their number, options of the compiler, and what ends the call itself."""


def _custom(tool: CustomTool, param: str) -> Callee:
    form = tool.custom.format
    if not isinstance(form, GrammarFormat):
        return Callee(tool.custom.name)
    if (found := _STEERING.search(form.grammar.definition)) is not None:
        raise InvalidRequest(
            f"Invalid grammar for custom tool '{tool_name(tool)}': it may not hold {quote(found[0])}.",
            param=param,
            code="invalid_value",
        )
    try:
        compiled(f"start: input\n{input_rule('input', form.grammar)}\n")
    except Uncompilable as exc:
        raise InvalidRequest(
            f"Invalid grammar for custom tool '{tool_name(tool)}': {exc}", param=param, code="invalid_value"
        ) from exc
    return Callee(tool.custom.name, grammar=form.grammar)


def _held(schema: Raw, *, strict: bool, param: str, is_object: bool = False) -> str:
    try:
        return guided(bytes(schema), strict=strict, is_object=is_object)
    except Uncompilable as exc:
        raise InvalidRequest(
            f"Invalid schema in '{param}': this model can't hold it strictly: {exc}", param=param, code="invalid_value"
        ) from exc
