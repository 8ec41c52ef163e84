"""Messages to the text that the model was trained on, by the chat template in its file.

Rendered as Hugging Face's transformers does: a sandbox that forbids changing what it is given, with the same settings,
filters and functions. The template is trusted no more than any other downloaded file.

Text of a client's that spells a control token (`<|im_end|>`) must not become one: that would let a user speak as the
system. Tokenising such text apart from the template would change the tokens of ordinary text, so the prompt is
rendered as one; only where a message holds such a spelling, a marker nobody can guess stands in its place while
rendering, and the spelling comes back as a segment of its own, to be tokenised as plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.nodes import Node, Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from msgspec import Struct

from chatport.backends.llama.calls import TRIED_ARGUMENTS, TRIED_NAME
from chatport.backends.llama.conversation import Abilities, Conversation, Plain, in_parts
from chatport.backends.llama.gguf import ModelFile, ModelFileError
from chatport.backends.llama.vocabulary import Vocabulary
from chatport.wire.errors import InvalidRequest


def read_template(path: Path) -> str:
    """A template in a file of its own. Raises ModelFileError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise ModelFileError(f"The chat template {path} can't be read: {reason}.") from exc


class Segment(Struct, frozen=True):
    """A piece of a prompt. `plain`: control tokens' spellings in it are text."""

    text: str
    plain: bool = False


class Refused(Exception):
    """The template's own `raise_exception`: these messages are not what the model knows, and why."""


class ChatTemplate:
    """The template of one model. Raises ModelFileError where it has none, or none that compiles."""

    def __init__(self, model: ModelFile, vocabulary: Vocabulary) -> None:
        if model.chat_template is None:
            raise ModelFileError(
                f"{model.path} has no chat template: it is a base model, which continues texts but does not chat. "
                "Use an instruction-tuned one."
            )
        self.control = _any_of(vocabulary.control_texts)
        """Finds spellings of control tokens."""
        self._names = {"bos_token": vocabulary.spelling(model.bos_id), "eos_token": vocabulary.spelling(model.eos_id)}
        environment = _environment()
        try:
            self._template = environment.from_string(model.chat_template)
            self.variables = find_undeclared_variables(environment.parse(model.chat_template))
            """What it can be given beside the conversation."""
        except TemplateError as exc:
            raise ModelFileError(f"The chat template in {model.path} can't be used: {exc}.") from exc
        self.text = model.chat_template
        self.call = ""
        """What it makes of a conversation with a call in it; empty where it does not know tools, or their calls, or
        what comes back."""
        self.abilities = self._tried()

    def render(self, conversation: Conversation, **variables: Any) -> list[Segment]:
        """The prompt up to where the model answers. Raises InvalidRequest for messages that the template refuses."""
        guard = _Guard(self.control)
        hidden = Conversation(guard.hide(conversation.messages), guard.hide(conversation.tools))
        try:
            return guard.reveal(self._rendered(hidden, **variables))
        except Refused as exc:
            raise InvalidRequest(f"The model's chat template refuses these messages: {exc}", param="messages") from exc
        except FAILURES as exc:
            raise InvalidRequest("The model's chat template can't render these messages.", param="messages") from exc

    def _rendered(self, conversation: Conversation, **variables: Any) -> str:
        tools = {} if conversation.tools is None else {"tools": conversation.tools}
        return self._template.render(
            messages=conversation.messages, add_generation_prompt=True, **tools, **self._names, **variables
        )

    def _tried(self) -> Abilities:
        """What it can write. No name or version tells that as well as a trial."""
        parts = not self._writes(_trial(parts=False), TRIED_QUESTION) and self._writes(
            _trial(parts=True), TRIED_QUESTION
        )
        objects = json.loads(TRIED_ARGUMENTS)
        takes_objects = self._writes(_trial(objects), *TRIED_CALL)
        arguments = objects if takes_objects else TRIED_ARGUMENTS
        if self._writes(_trial(arguments), *TRIED_CALL):
            self.call = self._rendered(_trial(arguments))
        return Abilities(
            tools=bool(self.call),
            objects=takes_objects,
            several=self._writes(_trial(arguments, calls=2), *TRIED_CALL),
            system=self._writes(_trial(system=True, parts=parts), TRIED_SYSTEM),
            parts=parts,
        )

    def _writes(self, conversation: Conversation, *words: str) -> bool:
        """Whether these words of a conversation come out."""
        try:
            prompt = self._rendered(conversation)
        except (Refused, *FAILURES):
            return False
        return all(word in prompt for word in words)


FAILURES = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError)
"""What a template may raise for messages it was not written for."""
TRIED_SYSTEM, TRIED_QUESTION, TRIED_RESULT = "trial system", "trial question", "trial result"
TRIED_CALL = (TRIED_NAME, TRIED_ARGUMENTS, TRIED_RESULT)


def _trial(arguments: object = None, *, calls: int = 1, system: bool = False, parts: bool = False) -> Conversation:
    """A question; where there are arguments, with this many calls that have them, their results and an answer."""
    led = [{"role": "system", "content": TRIED_SYSTEM}] if system else []
    messages: list[Plain] = [*led, {"role": "user", "content": TRIED_QUESTION}]
    if arguments is None:
        return Conversation(in_parts(messages) if parts else messages, None)
    described = {"name": TRIED_NAME, "description": "A tool", "parameters": {"type": "object", "properties": {}}}
    called = {"name": TRIED_NAME, "arguments": arguments}
    ids = [f"call{number:05}" for number in range(calls)]
    made = [{"id": call, "type": "function", "function": called} for call in ids]
    messages += [
        {"role": "assistant", "content": "", "tool_calls": made},
        *({"role": "tool", "name": TRIED_NAME, "content": TRIED_RESULT, "tool_call_id": call} for call in ids),
        {"role": "assistant", "content": "An answer"},
        {"role": "user", "content": "Another question"},
    ]
    return Conversation(messages, [{"type": "function", "function": described}])


class _Guard:
    """Keeps spellings of control tokens out of the template's hands, and gives them back as plain text."""

    def __init__(self, control: re.Pattern[str]) -> None:
        self._control = control
        self._mark = f"\ue000{token_hex(8)}\ue001"
        self._hidden: list[str] = []

    def hide(self, value: Any) -> Any:
        """The same strings, lists and dicts, with a mark for each spelling."""
        match value:
            case str():
                return self._control.sub(self._hide_one, value)
            case list():
                return [self.hide(item) for item in value]
            case dict():
                return {self.hide(key): self.hide(item) for key, item in value.items()}
        return value

    def reveal(self, text: str) -> list[Segment]:
        """What was rendered, taken apart at the marks."""
        parts = re.split(f"{self._mark}([0-9]+);", text)
        segments = [
            Segment(self._hidden[int(part)], plain=True) if position % 2 else Segment(part)
            for position, part in enumerate(parts)
        ]
        return [segment for segment in segments if segment.text]

    def _hide_one(self, found: re.Match[str]) -> str:
        self._hidden.append(found[0])
        return f"{self._mark}{len(self._hidden) - 1};"


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds any of the texts, the longest first; nothing where there are none."""
    return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) or r"(?!)")


class _Generation(Extension):
    """`{% generation %}`, by which templates mark what training is to learn: what stands in it is rendered."""

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes HTML, which would put &lt; into prompts."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise Refused(message)


def _now(form: str) -> str:
    """Today, for templates that tell the model the date; the machine's own time zone, as transformers does."""
    return datetime.now().astimezone().strftime(form)
