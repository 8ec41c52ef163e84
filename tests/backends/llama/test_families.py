"""Real chat templates, as the models' makers published them: what each is found to do, and what is written with it.

The texts come from packages that `make test` puts beside the environment (`.venv/templates`); none is committed. No
weights of these models were run here: what is shown is that their prompts come out as their makers write them, and
that a call as the template writes it is just the call that the grammar would hold the model to.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chatport.backends.llama.calls import FormatName
from chatport.backends.llama.compiler import compiled
from chatport.backends.llama.shape import Draft, Shape, Shaper
from chatport.backends.llama.template import ChatTemplate
from chatport.backends.llama.vocabulary import Vocabulary
from chatport.wire.chat import ChatRequest
from support.vocabularies import model_of

TEMPLATES = Path(sys.prefix, "templates")
FOLDERS = ("trl/chat_templates", "axolotl/utils/chat_templates/templates")

NATIVE: dict[str, tuple[FormatName, bool]] = {
    "trl/chat_templates/qwen2_5.jinja": ("hermes", False),
    "trl/chat_templates/qwen3.jinja": ("hermes", True),
    "trl/chat_templates/qwen3_instruct_2507.jinja": ("hermes", False),
    "trl/chat_templates/qwen3_vl.jinja": ("hermes", False),
    "trl/chat_templates/llama3_1.jinja": ("llama3", False),
    "trl/chat_templates/llama3_2.jinja": ("llama3", False),
    "axolotl/utils/chat_templates/templates/exaone4.jinja": ("hermes", True),
    "axolotl/utils/chat_templates/templates/llama4.jinja": ("llama3", False),
    "axolotl/utils/chat_templates/templates/mistral_v2v3.jinja": ("mistral", False),
    "axolotl/utils/chat_templates/templates/mistral_v3_tekken.jinja": ("mistral", False),
}
"""Templates that write tools and calls themselves: the family of their calls, and whether their models think."""

OTHERS = (
    "trl/chat_templates/deepseek_r1_distill.jinja",
    "trl/chat_templates/gemma3.jinja",
    "trl/chat_templates/llama3.jinja",
    "trl/chat_templates/phi3_5.jinja",
    "trl/chat_templates/qwen3_6.jinja",
    "trl/chat_templates/gptoss.jinja",
    "trl/chat_templates/lfm2_2_5_v2.jinja",
    "axolotl/utils/chat_templates/templates/chatml.jinja",
    "axolotl/utils/chat_templates/templates/mistral_v1.jinja",
)
"""Templates that know no tools, or write calls in a form of their own: the prompt tells them ours."""

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "W", "parameters": PARAMETERS}}
ARGUMENTS = '{"city": "Oslo"}'


def called(*ids: str) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": ARGUMENTS}
    calls = [{"id": call, "type": "function", "function": function} for call in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


HISTORY = [
    {"role": "user", "content": "And in Oslo?"},
    called("call_abcdefghijkl"),
    {"role": "tool", "tool_call_id": "call_abcdefghijkl", "content": "Sleet"},
]


@cache
def source(name: str) -> str:
    path = TEMPLATES / name
    if not path.exists():
        if "CI" in os.environ:
            pytest.fail(f"{path} is not there")
        pytest.skip(f"{path} is not there; `make test` fetches it")
    return path.read_text(encoding="utf-8")


def shaper(name: str) -> Shaper:
    model = model_of("gpt2", b"<s>", types=[3], chat_template=source(name))
    vocabulary = Vocabulary(model)
    return Shaper(ChatTemplate(model, vocabulary), vocabulary.control_id, system_prompt=None, form=None)


def draft(name: str, **fields: Any) -> tuple[Shaper, Draft]:
    plain = {"model": "m", "messages": HISTORY, "tools": [WEATHER], **fields}
    using = shaper(name)
    return using, using.draft(msgspec.json.decode(msgspec.json.encode(plain), type=ChatRequest))


def shape(name: str, **fields: Any) -> Shape:
    using, drafted = draft(name, **fields)
    return using.shape(drafted)


def prompt(name: str, **fields: Any) -> str:
    return "".join(segment.text for segment in draft(name, **fields)[1].prompt)


@pytest.mark.parametrize(("name", "family", "thinks"), [(name, *found) for name, found in NATIVE.items()], ids=NATIVE)
class TestATemplateThatWritesCalls:
    def test_is_known_by_the_form_it_writes(self, name: str, family: FormatName, thinks: bool) -> None:
        reading = shape(name).reading
        assert (reading.form.name, reading.thinking is not None) == (family, thinks)

    def test_writes_the_call_that_the_grammar_holds(self, name: str, family: FormatName, thinks: bool) -> None:
        """Up to the arguments' end: Mistral's templates add the call's id, which the model itself does not write."""
        held = shape(name)
        assert held.grammar is not None
        compiled(held.grammar)
        written = held.reading.form.written("get_weather", ARGUMENTS).removesuffix(held.reading.form.closes)
        assert written.removesuffix("}") in prompt(name)

    def test_tells_the_tool_once_and_by_itself(self, name: str, family: FormatName, thinks: bool) -> None:
        text = prompt(name)
        assert "# Tools\n\nYou can call these functions:" not in text
        assert text.count('"description": "W"') == 1
        assert "Sleet" in text

    def test_several_calls_in_one_message(self, name: str, family: FormatName, thinks: bool) -> None:
        results = [{"role": "tool", "tool_call_id": call, "content": f"result {call}"} for call in ("one", "two")]
        text = prompt(name, messages=[HISTORY[0], called("one", "two"), *results])
        assert text.count("Oslo") == 3
        assert "result one" in text
        assert "result two" in text


@pytest.mark.parametrize("name", OTHERS)
class TestAnyOtherTemplate:
    def test_is_told_our_form(self, name: str) -> None:
        text = prompt(name)
        form = shape(name).reading.form
        assert "You can call these functions:" in text
        assert form.written("NAME", '{"ARGUMENT": VALUE}') in text
        assert form.written("get_weather", ARGUMENTS) in text
        assert "<tool_response>\nSleet\n</tool_response>" in text

    def test_takes_a_user_who_goes_on_after_a_result(self, name: str) -> None:
        text = prompt(name, messages=[*HISTORY, {"role": "user", "content": "And tomorrow?"}])
        assert "</tool_response>\nAnd tomorrow?" in text


def every_template() -> list[str]:
    found = [path.relative_to(TEMPLATES) for folder in FOLDERS for path in (TEMPLATES / folder).glob("*.jinja")]
    return sorted(str(path) for path in found)


@pytest.mark.parametrize("name", every_template())
def test_every_template_can_be_used(name: str) -> None:
    """Loaded, tried, and rendered with a system prompt, tools, a thought and a format."""
    messages = [{"role": "user", "content": "Say hello in JSON."}]
    fields = {"messages": messages, "response_format": {"type": "json_object"}, "reasoning_effort": "low"}
    grammar = shape(name, **fields).grammar
    assert grammar is not None
    compiled(grammar)
    assert "Say hello in JSON." in prompt(name, **fields)


class TestThinking:
    NAME = "trl/chat_templates/qwen3.jinja"

    def test_is_switched_by_the_effort(self) -> None:
        assert prompt(self.NAME, reasoning_effort="none").endswith("<think>\n\n</think>\n\n")
        assert prompt(self.NAME, reasoning_effort="high").endswith("<|im_start|>assistant\n")
        assert prompt(self.NAME) == prompt(self.NAME, reasoning_effort="medium")

    def test_may_be_begun_by_the_prompt(self) -> None:
        assert shape("trl/chat_templates/deepseek_r1_distill.jinja").reading.thinks_already
        assert not shape(self.NAME).reading.thinks_already
        assert not shape(self.NAME, reasoning_effort="none").reading.thinks_already

    def test_thoughts_of_a_round_that_goes_on_are_given_back(self) -> None:
        answer = {**called("one"), "reasoning_content": "Hm, Oslo."}
        result = {"role": "tool", "tool_call_id": "one", "content": "Sleet"}
        text = prompt(self.NAME, messages=[HISTORY[0], answer, result])
        assert "<think>\nHm, Oslo.\n</think>" in text
