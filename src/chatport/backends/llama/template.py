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
from collections.abc import Iterable, Sequence
from datetime import datetime
from secrets import token_hex
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from msgspec import Struct, to_builtins

from chatport.backends.llama.gguf import ModelFile, ModelFileError
from chatport.backends.llama.vocabulary import Vocabulary
from chatport.wire.chat import AssistantMessage, Message, Part, RefusalPart, TextPart
from chatport.wire.errors import InvalidRequest, Unsupported, quote

ROLES = {"developer": "system", "function": "tool"}
"""What a role is called where templates know fewer (contract.md §16: developer counts as system)."""


class Segment(Struct, frozen=True):
    """A piece of a prompt. `plain`: control tokens' spellings in it are text."""

    text: str
    plain: bool = False


class Refused(Exception):
    """The template's own `raise_exception`: these messages are not what the model knows, and why."""


class ChatTemplate:
    """The template of one model. Raises ModelFileError where it has none, or none that compiles."""

    def __init__(self, model: ModelFile, vocabulary: Vocabulary, system_prompt: str | None = None) -> None:
        if model.chat_template is None:
            raise ModelFileError(
                f"{model.path} has no chat template: it is a base model, which continues texts but does not chat. "
                "Use an instruction-tuned one."
            )
        self._system_prompt = system_prompt
        self._control = _any_of(vocabulary.control_texts)
        self._names = {"bos_token": vocabulary.spelling(model.bos_id), "eos_token": vocabulary.spelling(model.eos_id)}
        try:
            self._template = _environment().from_string(model.chat_template)
        except TemplateError as exc:
            raise ModelFileError(f"The chat template in {model.path} can't be used: {exc}.") from exc

    def render(self, messages: Sequence[Message]) -> list[Segment]:
        """The prompt up to where the model answers. Raises Unsupported for parts that are not text, InvalidRequest for
        an order of messages that the template refuses."""
        plain = [_as_dict(index, message) for index, message in enumerate(messages)]
        if self._system_prompt is not None and not any(message["role"] == "system" for message in plain):
            plain.insert(0, {"role": "system", "content": self._system_prompt})
        guard = _Guard(self._control)
        try:
            text = self._template.render(messages=guard.hide(plain), add_generation_prompt=True, **self._names)
        except Refused as exc:
            raise InvalidRequest(f"The model's chat template refuses these messages: {exc}", param="messages") from exc
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as exc:
            raise InvalidRequest("The model's chat template can't render these messages.", param="messages") from exc
        return guard.reveal(text)


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
                return {key: self.hide(item) for key, item in value.items()}
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


def _as_dict(index: int, message: Message) -> dict[str, Any]:
    """A message as templates know it: content is text, the role one of system, user, assistant, tool."""
    plain: dict[str, Any] = to_builtins(message)
    plain["role"] = ROLES.get(plain["role"], plain["role"])
    plain["content"] = _text(index, message.content)
    if isinstance(message, AssistantMessage):
        plain["content"] = plain["content"] or message.refusal or ""
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


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
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
