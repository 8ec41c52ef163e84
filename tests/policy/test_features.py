"""What a target can't honour is refused by the name of the field that asks for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from chatport.policy.features import ASKED, refuse_unsupported
from chatport.targets import EVERY_FEATURE, Feature, Target
from chatport.wire.chat import ChatRequest
from chatport.wire.errors import Unsupported

USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def request(*messages: dict[str, Any], **fields: Any) -> ChatRequest:
    body = msgspec.json.encode({"model": "gpt-4", "messages": [USER, *messages], **fields})
    return msgspec.json.decode(body, type=ChatRequest)


def target(features: frozenset[Feature]) -> Target:
    return Target(id="t", backend="b", model="small", features=features)


def parts(part: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "Look:"}, part]}


IMAGE = parts({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}})
AUDIO = parts({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}})
FILE = parts({"type": "file", "file": {"file_id": "f"}})
SCHEMA = {"name": "s", "schema": {"type": "object"}}

ASKS = [
    (Feature.VISION, request(IMAGE), "messages[1].content[1]", "unsupported_value"),
    (Feature.AUDIO_INPUT, request(AUDIO), "messages[1].content[1]", "unsupported_value"),
    (Feature.FILES, request(FILE), "messages[1].content[1]", "unsupported_value"),
    (Feature.AUDIO_OUTPUT, request(modalities=["text", "audio"]), "modalities", "unsupported_value"),
    (
        Feature.AUDIO_OUTPUT,
        request({"role": "assistant", "audio": {"id": "a"}}),
        "messages[1].audio",
        "unsupported_value",
    ),
    (Feature.CHOICES, request(n=2), "n", "unsupported_value"),
    (Feature.LOGPROBS, request(logprobs=True), "logprobs", "unsupported_parameter"),
    (Feature.LOGIT_BIAS, request(logit_bias={"1": 5}), "logit_bias", "unsupported_parameter"),
    (Feature.TOOLS, request(tools=[TOOL]), "tools", "unsupported_parameter"),
    (Feature.TOOLS, request(tools=[TOOL], tool_choice="auto"), "tools", "unsupported_parameter"),
    (
        Feature.TOOLS,
        request({"role": "assistant", "tool_calls": [CALL]}, tools=[TOOL], tool_choice="none"),
        "messages[1].tool_calls",
        "unsupported_parameter",
    ),
    (
        Feature.TOOLS,
        request({"role": "tool", "content": "7", "tool_call_id": "c"}),
        "messages[1].role",
        "unsupported_parameter",
    ),
    (Feature.FUNCTIONS, request(functions=[{"name": "f"}]), "functions", "unsupported_parameter"),
    (
        Feature.FUNCTIONS,
        request({"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}),
        "messages[1].function_call",
        "unsupported_parameter",
    ),
    (
        Feature.FUNCTIONS,
        request({"role": "function", "name": "f", "content": "7"}),
        "messages[1].role",
        "unsupported_parameter",
    ),
    (
        Feature.JSON_OBJECT,
        request(response_format={"type": "json_object"}),
        "response_format",
        "unsupported_value",
    ),
    (
        Feature.JSON_SCHEMA,
        request(response_format={"json_schema": SCHEMA}),
        "response_format",
        "unsupported_value",
    ),
    (Feature.WEB_SEARCH, request(web_search_options={}), "web_search_options", "unsupported_parameter"),
    (Feature.MODERATION, request(moderation={"model": "m"}), "moderation", "unsupported_parameter"),
]


@pytest.mark.parametrize(("feature", "asking", "param", "code"), ASKS)
def test_a_missing_feature_is_refused_by_name(feature: Feature, asking: ChatRequest, param: str, code: str) -> None:
    with pytest.raises(Unsupported) as refusal:
        refuse_unsupported(asking, target(EVERY_FEATURE - {feature}))
    assert (refusal.value.param, refusal.value.code, refusal.value.status) == (param, code, 400)
    assert f"'{param}'" in refusal.value.message
    assert '"gpt-4"' in refusal.value.message


@pytest.mark.parametrize(("feature", "asking", "param", "code"), ASKS)
def test_that_feature_alone_is_enough(feature: Feature, asking: ChatRequest, param: str, code: str) -> None:
    refuse_unsupported(asking, target(frozenset({feature})))


def test_every_feature_has_its_row() -> None:
    assert set(ASKED) == set(Feature)
    assert {feature for feature, *_ in ASKS} == set(Feature)


@pytest.mark.parametrize(
    "modest",
    [
        request(),
        request(tools=[TOOL], tool_choice="none"),
        request(functions=[{"name": "f"}], function_call="none"),
        request(tool_choice="auto"),
        request(response_format={"type": "text"}),
        request(response_format={}),
        request(n=1, logprobs=False, logit_bias={}, modalities=["text"]),
        request(reasoning_effort="high", verbosity="low", prediction={"type": "content", "content": "x"}),
        request(parts({"type": "text", "text": "Hi"}), {"role": "assistant", "content": "Hello", "tool_calls": None}),
    ],
)
def test_what_asks_for_nothing_is_accepted(modest: ChatRequest) -> None:
    refuse_unsupported(modest, target(frozenset()))


def test_the_refusal_says_what_the_model_can_do() -> None:
    with pytest.raises(Unsupported, match=r"which supports: text, logprobs, n\.$"):
        refuse_unsupported(request(tools=[TOOL]), target(frozenset({Feature.LOGPROBS, Feature.CHOICES})))


def test_what_a_target_lacks_is_told_anew_of_a_changed_one() -> None:
    able = target(EVERY_FEATURE)
    changed = msgspec.structs.replace(able, features=EVERY_FEATURE - {Feature.TOOLS}, price_list="openai")
    assert (able.lacks, changed.lacks) == (frozenset[Feature](), frozenset({Feature.TOOLS}))
    assert (able.listed, changed.listed) == (None, "openai/small")
    with pytest.raises(Unsupported):
        refuse_unsupported(request(tools=[TOOL]), changed)
