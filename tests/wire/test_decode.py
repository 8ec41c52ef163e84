"""Bytes in, a request or a 400 out: what is no JSON, what both paths agree on, and that nothing else ever comes out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatport.wire import decode
from chatport.wire.chat import AssistantMessage, ChatRequest, TextPart, UserMessage
from chatport.wire.decode import MAX_MARKS, DecodeLimits, decode_metadata, decode_request
from chatport.wire.errors import BadJSON, InvalidRequest
from chatport.wire.fields import retell, validate

USER: dict[str, Any] = {"role": "user", "content": "json"}
MINIMAL: dict[str, Any] = {"model": "m", "messages": [USER]}

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
BREAK = {"prompt_cache_breakpoint": {"mode": "explicit"}}
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}},
]

FULL: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "developer", "content": "be", "name": "dev"},
        {"role": "system", "content": [{"type": "text", "text": "be", **BREAK}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": "https://example.com/x.png", "detail": "low"}, **BREAK},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"filename": "a", "file_data": "AAAA"}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": CALLS, "refusal": None},
        {"role": "tool", "content": "1", "tool_call_id": "c1"},
        {"role": "tool", "content": [{"type": "text", "text": "2"}], "tool_call_id": "c2"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "reasoning_content": "hm"},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}, "audio": {"id": "a"}},
        {"role": "function", "name": "f", "content": None},
    ],
    "temperature": 0.5,
    "top_p": 1,
    "n": 2,
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "stop": ["a", "b"],
    "max_tokens": 0,
    "max_completion_tokens": 7,
    "presence_penalty": -2,
    "frequency_penalty": 2,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 20,
    "user": "u",
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}},
        {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}},
        {
            "type": "custom",
            "custom": {"name": "h", "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}}},
        },
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
    },
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
    "seed": -(2**63),
    "reasoning_effort": "xhigh",
    "verbosity": "low",
    "modalities": ["text", "audio"],
    "audio": {"voice": {"id": "v"}, "format": "pcm16"},
    "prediction": {"type": "content", "content": [{"type": "text", "text": "p"}]},
    "store": True,
    "metadata": {"k": "v"},
    "service_tier": "fast",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
    "prompt_cache_retention": "24h",
    "web_search_options": {
        "search_context_size": "low",
        "user_location": {"type": "approximate", "approximate": {"country": "DE", "city": "Kiel"}},
    },
    "moderation": {"model": "mod", "policy": {"input": {"mode": "block"}, "output": {"mode": "score"}}},
    "function_call": "auto",
}
OPTIONAL = [name for name in ChatRequest.__struct_fields__ if name not in MINIMAL]


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def with_message(message: dict[str, Any]) -> bytes:
    return encode({"model": "m", "messages": [USER, message]})


# --- What is accepted ------------------------------------------------------------------------------------------------


def test_a_small_request() -> None:
    request = decode_request(encode(MINIMAL))
    assert request == ChatRequest(model="m", messages=[UserMessage("json")])


def test_every_field_of_the_contract_at_once() -> None:
    request = decode_request(encode(FULL))
    given = {name for name in ChatRequest.__struct_fields__ if getattr(request, name) is not None}
    assert given == {*ChatRequest.__struct_fields__} - {"functions"}
    assert json.loads(msgspec.json.encode(request)) == {
        **FULL,
        "messages": json.loads(msgspec.json.encode(request.messages)),
    }


@pytest.mark.parametrize("field", OPTIONAL)
def test_null_means_not_given(field: str) -> None:
    assert decode_request(encode({**MINIMAL, field: None})) == decode_request(encode(MINIMAL))


def test_null_optional_keys_of_messages_and_parts() -> None:
    null_keys = dict.fromkeys(["refusal", "audio", "tool_calls", "function_call", "name", "reasoning", "annotations"])
    parts = [{"type": "text", "text": "x", "prompt_cache_breakpoint": None}]
    request = decode_request(with_message({"role": "assistant", "content": parts, **null_keys}))
    assert request.messages[1] == AssistantMessage(content=[TextPart("x")])


ANSWERS: list[dict[str, Any]] = [
    {"role": "assistant", "content": "hi", "refusal": None, "annotations": [], "audio": None},
    {"role": "assistant", "content": None, "refusal": "no", "annotations": []},
    {
        "role": "assistant",
        "content": "",
        "refusal": None,
        "annotations": [{"type": "url_citation", "url_citation": {}}],
    },
    {"role": "assistant", "content": None, "refusal": None, "reasoning_content": "hm", "annotations": []},
    {"role": "assistant", "content": None, "refusal": None, "function_call": {"name": "f", "arguments": "{}"}},
    {"role": "assistant", "content": None, "audio": {"id": "a", "expires_at": 1, "data": "AA==", "transcript": "t"}},
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_may_be_sent_back_as_it_came(answer: dict[str, Any]) -> None:
    assert isinstance(decode_request(with_message(answer)).messages[1], AssistantMessage)


def test_an_answer_with_calls_may_be_sent_back_with_theirs() -> None:
    answer = {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": CALLS}
    answers = [{"role": "tool", "content": "", "tool_call_id": call["id"]} for call in CALLS]
    assert len(decode_request(encode({"model": "m", "messages": [USER, answer, *answers]})).messages) == 4


def test_unknown_keys_below_the_top_are_skipped() -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "x", "more": [1]}], "more": {"a": [None, 1e300]}}
    assert decode_request(with_message(message)).messages[1] == UserMessage([TextPart("x")])


def test_any_unicode_scalar_value_is_text() -> None:
    text = "\x00 \u2028 é 世 😀 \uffff"
    for ascii_only in (True, False):
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}, ensure_ascii=ascii_only)
        assert decode_request(body.encode()).messages == [UserMessage(text)]


def test_of_a_key_given_twice_the_last_wins_or_the_request_is_refused() -> None:
    assert decode_request(b'{"model":"a","model":"b","messages":[{"role":"user","content":""}]}').model == "b"
    with pytest.raises(InvalidRequest, match="given twice") as caught:
        decode_request(b'{"model":"a","messages":[{"role":"user","role":"system","content":""}]}')
    assert caught.value.param == "messages[0].role"


# --- What is no JSON object ------------------------------------------------------------------------------------------

NOT_JSON: list[tuple[bytes, str]] = [
    (b"", "empty"),
    (b" \n", "empty"),
    (b"\xef\xbb\xbf{}", "byte order mark"),
    (b"[]", "must be a JSON object, but got an array"),
    (b'"{}"', "but got a string"),
    (b"null", "but got null"),
    (b"1e400", "but got a decimal"),
    (b"hello", "could not parse"),
    (b"{'model': 1}", "could not parse"),
    (b'{"model": "m",}', "line 1, column 15"),
    (b'{\n "model": tru}', "line 2, column 15"),
    (b'{"model": "m"', "ends before"),
    (b"{} {}", "trailing characters"),
    (b'{"temperature": NaN}', "NaN and Infinity are not JSON"),
    (b'{"temperature": -Infinity}', "NaN and Infinity are not JSON"),
    (b'{"temperature": 01}', "could not parse"),
    (b'{"model": "\x01"}', "could not parse"),
    (b'{"model": "\xff"}', "not valid UTF-8"),
    (b'{"model": "\xed\xa0\x80"}', "not valid UTF-8"),
    ('{"model": "m"}'.encode("utf-16"), "not valid UTF-8"),
    (rb'{"model": "\ud800"}', "surrogate"),
    (rb'{"model": "\ud83d\u0041"}', "surrogate"),
    (rb'{"model": "\udc00"}', "surrogate"),
    (rb'{"n": 1e400, "model": "\ud800"}', "surrogate"),
    (b'{"n": 1e400, "seed": NaN}', "not JSON"),
    (b"[" * 40_000, "nested too deeply"),
    (b'{"model": ' * 5_000, "nested too deeply"),
    (b'{"n": 1e400, "a": ' + b"[" * 40_000, "nested too deeply"),
    (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "nested too deeply"),
]


@pytest.mark.parametrize(("body", "reason"), NOT_JSON, ids=[reason for _, reason in NOT_JSON])
def test_what_is_no_json_object(body: bytes, reason: str) -> None:
    with pytest.raises(BadJSON) as caught:
        decode_request(body)
    assert reason in caught.value.message
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, None, None)


HIDDEN = [b"\xff", b"\xc0\xaf", rb"\ud800", b"\x01", rb"\x"]


@pytest.mark.parametrize("text", HIDDEN)
@pytest.mark.parametrize("place", [b'"parameters":{"title":"%s"}', b'"more":"%s"', b'"%s":1'])
def test_what_is_skipped_or_kept_raw_is_json_in_utf8_too(place: bytes, text: bytes) -> None:
    head = (
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f",'
    )
    with pytest.raises(BadJSON):
        decode_request(head + place.replace(b"%s", text) + b"}}]}")


def test_an_escaped_backslash_is_no_surrogate() -> None:
    body = rb'{"model":"m","messages":[{"role":"user","content":"\\ud800 \ud83d\ude00"}]}'
    assert decode_request(body).messages == [UserMessage("\\ud800 😀")]
    with pytest.raises(BadJSON, match="ends before"):
        decode_request(rb'{"model":"\\ud800 \ud83d\ude00')


# --- Numbers, depth, length ------------------------------------------------------------------------------------------

DIGITS = "9" * 5_000


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ('"temperature": 1e400', "decimal_above_max_value"),
        ('"temperature": -1e400', "decimal_below_min_value"),
        (f'"temperature": {DIGITS}', "decimal_above_max_value"),
        ('"seed": 1e400', "invalid_type"),
        (f'"seed": {DIGITS}', "integer_above_max_value"),
        (f'"seed": -{DIGITS}', "integer_below_min_value"),
        (f'"max_tokens": {DIGITS}', "integer_above_max_value"),
        ('"model": 1e400', "invalid_type"),
        (f'"unheard_of": {DIGITS}', "unknown_parameter"),
    ],
)
def test_a_number_beyond_python_s_range_is_a_fault_of_its_field(fields: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_request(f'{{"messages": [{{"role": "user", "content": "x"}}], {fields}}}'.encode())
    assert caught.value.code == code
    assert len(caught.value.message) < 300


def test_a_number_beyond_python_s_range_in_a_schema() -> None:
    tools = '[{"type": "function", "function": {"name": "f", "parameters": {"maximum": 1e400}}}]'
    with pytest.raises(InvalidRequest) as caught:
        decode_request(f'{{"model": "m", "messages": [{json.dumps(USER)}], "tools": {tools}}}'.encode())
    assert caught.value.param == "tools[0].function.parameters"


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(("levels", "fits"), [(64, True), (65, False), (400, False)])
def test_a_schema_has_at_most_the_levels_allowed(levels: int, fits: bool) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": nested(levels)}}
    body = encode({**MINIMAL, "tools": [tool]})
    if fits:
        decode_request(body)
        return
    with pytest.raises(InvalidRequest, match="64 levels") as caught:
        decode_request(body)
    assert caught.value.param == "tools[0].function.parameters"


def test_brackets_in_strings_do_not_nest() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"title": '{[\\"' * 200}}}
    decode_request(encode({**MINIMAL, "tools": [tool]}))


def test_the_number_of_messages_is_limited() -> None:
    limits = DecodeLimits(max_messages=3)
    decode_request(encode({"model": "m", "messages": [USER] * 3}), limits)
    with pytest.raises(InvalidRequest) as caught:
        decode_request(encode({"model": "m", "messages": [USER] * 4}), limits)
    assert (caught.value.code, caught.value.param) == ("array_above_max_length", "messages")


# --- Metadata --------------------------------------------------------------------------------------------------------


def test_metadata() -> None:
    assert decode_metadata(b'{"metadata": {"a": "b"}}') == {"a": "b"}
    assert decode_metadata(b'{"metadata": {}}') == {}
    assert decode_metadata(b'{"metadata": null}') is None


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{}", "missing_required_parameter", "metadata"),
        (b'{"metadata": 1}', "invalid_type", "metadata"),
        (b'{"metadata": {"a": 1}}', "invalid_type", "metadata.a"),
        (b'{"metadata": null, "model": "m"}', "unknown_parameter", "model"),
        (encode({"metadata": {str(i): "" for i in range(17)}}), "object_above_max_properties", "metadata"),
        (b"[]", None, None),
    ],
)
def test_bad_metadata(body: bytes, code: str | None, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_metadata(body)
    assert (caught.value.code, caught.value.param) == (code, param)


# --- Whatever comes in -----------------------------------------------------------------------------------------------

STEADY = settings(deadline=None, derandomize=True)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["user", "tool", "text", "function", "auto", "required", "json_schema", "c1", "f"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "name", "function"]) | st.text(max_size=4), inner, max_size=3
        )
    ),
    max_leaves=8,
)


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every value within, outermost first."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def nearly_valid(draw: st.DrawFn) -> dict[str, Any]:
    """A valid request with one to three values replaced, removed or doubled, or a key added."""
    request: dict[str, Any] = deepcopy(draw(st.sampled_from([FULL, MINIMAL])))
    for _ in range(draw(st.integers(1, 3))):
        if not request:
            break
        *way, last = draw(st.sampled_from(list(places(request))))
        inner: Any = request
        for step in way:
            inner = inner[step]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                inner[last] = draw(JSON)
            case "remove":
                del inner[last]
            case _ if isinstance(inner, dict):
                inner[draw(st.sampled_from(ChatRequest.__struct_fields__) | st.text(max_size=6))] = draw(JSON)
            case _:
                inner.append(draw(JSON))
    return request


def outcome(body: bytes) -> ChatRequest | InvalidRequest:
    try:
        return decode_request(body)
    except InvalidRequest as exc:
        error = exc
    shown = json.loads(error.body())["error"]
    assert (error.status, shown["type"]) == (400, "invalid_request_error")
    assert (shown["message"], shown["param"], shown["code"]) == (error.message, error.param, error.code)
    assert isinstance(error, BadJSON) == (error.code is None)
    return error


@STEADY
@given(st.binary(max_size=64) | st.binary(max_size=16).map(lambda inner: b'{"model":"m","messages":[' + inner + b"]}"))
def test_any_bytes_give_a_request_or_a_400(body: bytes) -> None:
    assert outcome(body) is not None


@STEADY
@given(JSON.map(encode))
def test_any_json_gives_a_request_or_a_400(body: bytes) -> None:
    assert outcome(body) is not None


@STEADY
@given(nearly_valid(), st.integers(0, 4000))
def test_any_request_cut_short_is_no_json(request: dict[str, Any], end: int) -> None:
    body = encode(request)
    assert isinstance(outcome(body[: end % len(body)]), BadJSON)


@settings(STEADY, max_examples=400)
@given(nearly_valid())
def test_both_paths_agree(request: dict[str, Any]) -> None:
    body = encode(request)
    try:
        msgspec.json.decode(body, type=ChatRequest)
    except msgspec.ValidationError:
        with pytest.raises(InvalidRequest) as caught:
            validate(ChatRequest, msgspec.json.decode(body))
        assert caught.value.code is not None
        assert caught.value.param is not None
    else:
        validate(ChatRequest, msgspec.json.decode(body))
    assert outcome(body) is not None


# --- Bodies too rich to be walked ------------------------------------------------------------------------------------


@pytest.fixture
def unwalked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No body is walked: each is told by msgspec's own finding."""
    monkeypatch.setattr(decode, "MAX_MARKS", -1)
    monkeypatch.setattr(decode, "_plain", lambda _: pytest.fail("made plain"))


def test_a_rich_body_is_not_made_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_plain", lambda _: pytest.fail("made plain"))
    for filler in (b"{}", b"[]", b"0", b'"\\n"'):
        items = b",".join([filler] * MAX_MARKS)
        with pytest.raises(InvalidRequest) as caught:
            decode_request(b'{"model":"m","messages":[{"role":"user","content":""}],"stop":"","user":[' + items + b"]}")
        assert (caught.value.code, caught.value.param) == ("invalid_type", "user")


def test_a_long_body_of_few_values_is_walked() -> None:
    message = {"role": "user", "content": "x" * 2_000_000}
    with pytest.raises(InvalidRequest, match="Did you mean 'temperature'"):
        decode_request(encode({"model": "m", "messages": [message], "temprature": 1}))


FAULTS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"messages": [{}]}, "missing_required_parameter", "messages[0].role", "'messages[0].role'"),
    ({"messages": [{"role": "x"}]}, "invalid_value", "messages[0].role", '"x" is not one of the supported'),
    ({"messages": [{"role": 1}]}, "invalid_type", "messages[0].role", "expected a string"),
    ({"messages": []}, "empty_array", "messages", "length >= 1"),
    ({"model": 1}, "invalid_type", "model", "expected a string, but got an integer"),
    ({"stop": 1.5}, "invalid_type", "stop", "expected a string or an array, but got a decimal"),
    ({"stop": [""] * 5}, "array_above_max_length", "stop", "length <= 4"),
    ({"temprature": 1}, "unknown_parameter", "temprature", "Did you mean 'temperature'?"),
    ({"temperature": 3}, "decimal_above_max_value", "temperature", "a number <= 2.0"),
    ({"n": 0}, "integer_below_min_value", "n", "an integer >= 1"),
    ({"logit_bias": {"1": 101}}, "integer_above_max_value", "logit_bias", "<= 100"),
    ({"logit_bias": {"x": 1}}, "invalid_value", "logit_bias", "matches '^[0-9]{1,18}$'"),
    ({"metadata": {"a" * 65: ""}}, "string_above_max_length", "metadata", "length <= 64"),
    ({"metadata": {str(i): "" for i in range(17)}}, "object_above_max_properties", "metadata", "length <= 16"),
    ({"verbosity": "x" * 9_000}, "invalid_value", "verbosity", "…"),
    ({"verbosity": "x` - at `$.n"}, "invalid_value", "verbosity", "is not one of"),
    ({"tool_choice": {}}, "missing_required_parameter", "tool_choice.type", "'tool_choice.type'"),
]


@pytest.mark.usefixtures("unwalked")
@pytest.mark.parametrize(("fields", "code", "param", "text"), FAULTS)
def test_what_is_told_without_a_walk(fields: dict[str, Any], code: str, param: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_request(encode({**MINIMAL, **fields}))
    assert (caught.value.code, caught.value.param) == (code, param)
    assert text in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.usefixtures("unwalked")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends before"),
        (b"[]", "must be a JSON object, but got an array"),
        (b"1.5", "but got a decimal"),
        (b"null", "but got null"),
        (b'{"model": tru}', "line 1, column 15"),
        (b'{"temperature": NaN}', "NaN and Infinity are not JSON"),
        (rb'{"model": "\ud800"}', "half a surrogate pair"),
        (rb'{"model": "\ud83d\u0041"}', "surrogate pair"),
        (b'{"unheard": 1, "a": ' + b"[" * 100_000, "unheard"),
        (b'{"messages":[{"role":"user","content":"","x":' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_no_json_is_told_without_a_walk(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_request(body)
    assert reason in caught.value.message
    assert isinstance(caught.value, BadJSON) or reason == "unheard"


@pytest.mark.usefixtures("unwalked")
def test_a_number_beyond_python_s_range_is_told_without_a_walk() -> None:
    with pytest.raises(InvalidRequest, match="out of range") as caught:
        decode_request(b'{"temperature": 1e999}')
    assert (caught.value.code, caught.value.param) == ("invalid_value", "temperature")


@STEADY
@given(nearly_valid())
def test_any_request_is_told_without_a_walk(request: dict[str, Any]) -> None:
    try:
        msgspec.json.decode(encode(request), type=ChatRequest)
    except msgspec.ValidationError as exc:
        error = retell(ChatRequest, str(exc))
        assert error.code is not None
        assert error.param is not None
