"""The description says what is served: each route, its messages, its errors."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
import pytest

from chatport.runtime import Readiness
from chatport.web.app import ROUTES
from chatport.web.openapi import document
from chatport.wire.chat import ChatRequest
from support.site import chat_body

DOCUMENT: dict[str, Any] = msgspec.json.decode(document())


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    )


def test_every_route_is_described_and_nothing_else() -> None:
    served = {(route.path.replace("...", ""), method.lower()) for route in ROUTES for method in route.methods}
    described = {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == served


def test_keys_are_asked_for_where_they_are_needed() -> None:
    for route in ROUTES:
        for method in route.methods:
            operation = DOCUMENT["paths"][route.path.replace("...", "")][method.lower()]
            assert ("security" in operation) == route.keyed
            assert ("401" in operation["responses"]) == route.keyed


def test_every_reference_leads_somewhere() -> None:
    names = set(DOCUMENT["components"]["schemas"])
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                found.add(value["$ref"].rpartition("/")[2])
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(DOCUMENT)
    assert found <= names
    assert {"ChatRequest", "ChatCompletion", "ChatChunk", "ErrorBody"} <= found


def test_every_field_of_a_request_is_described() -> None:
    described = DOCUMENT["components"]["schemas"]["ChatRequest"]["properties"]
    assert set(described) == {field.encode_name for field in msgspec.structs.fields(ChatRequest)}


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_every_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"][name])


def test_the_request_schema_tells_good_from_bad() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    good: dict[str, Any] = msgspec.json.decode(chat_body(tools=[tool], temperature=1))
    requests = validator("ChatRequest")
    requests.validate(good)
    changes: tuple[dict[str, Any], ...] = (
        {"messages": []},
        {"temperature": 3},
        {"unknown": 1},
        {"tools": [{"type": "function"}]},
    )
    for change in changes:
        assert not requests.is_valid(good | change), change


def test_path_parameters_are_named() -> None:
    parameters = DOCUMENT["paths"]["/v1/chat/completions/{id}/messages"]["get"]["parameters"]
    assert {(parameter["name"], parameter["in"]) for parameter in parameters} >= {("id", "path"), ("after", "query")}


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_patterns_are_not_pythons_own(name: str) -> None:
    assert "\\\\Z" not in msgspec.json.encode(DOCUMENT["components"]["schemas"][name]).decode()


def test_a_name_s_pattern_ends_where_the_name_does() -> None:
    pattern = DOCUMENT["components"]["schemas"]["Function"]["properties"]["name"]["pattern"]
    assert pattern == "^[a-zA-Z0-9_-]+$"


ALWAYS_SENT = {
    "ChatCompletion": "id object created model choices usage system_fingerprint service_tier",
    "ResponseMessage": "role content refusal annotations",
    "Choice": "index message logprobs finish_reason",
    "ChunkChoice": "index delta logprobs finish_reason",
    "ChatChunk": "id object created model choices system_fingerprint",
    "Usage": "prompt_tokens completion_tokens total_tokens prompt_tokens_details completion_tokens_details",
    "PromptTokensDetails": "cached_tokens audio_tokens",
    "CompletionTokensDetails": "reasoning_tokens audio_tokens accepted_prediction_tokens rejected_prediction_tokens",
    "StoredMessage": "id role content refusal content_parts",
    "CompletionDeleted": "object id deleted",
    "FunctionToolCall": "type id function",
    "ToolCallDelta": "index",
    "ModelObject": "id object created owned_by",
    "TextPart": "type text",
    "ErrorObject": "message type param code",
}


@pytest.mark.parametrize(("name", "fields"), ALWAYS_SENT.items(), ids=ALWAYS_SENT)
def test_what_is_always_sent_is_required(name: str, fields: str) -> None:
    assert DOCUMENT["components"]["schemas"][name]["required"] == fields.split()


def test_delta_may_be_empty() -> None:
    assert not DOCUMENT["components"]["schemas"]["Delta"].get("required")


def test_readiness_is_described_as_the_runtime_says_it() -> None:
    responses = DOCUMENT["paths"]["/readyz"]["get"]["responses"]
    assert set(responses) == {"200", "405", "503"}
    for status in ("200", "503"):
        schema = responses[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Readiness"}
    said = msgspec.to_builtins(Readiness(ready=False, store="ready", models={"m": "loading"}))
    validator("Readiness").validate(said)
    assert set(DOCUMENT["components"]["schemas"]["Readiness"]["required"]) == set(said)


def test_headers_of_a_create() -> None:
    responses = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["responses"]
    named = {status: set(response["headers"]) for status, response in responses.items()}
    timed = {"x-request-id", "openai-processing-ms", "openai-version"}
    limits = {
        f"x-ratelimit-{word}-{unit}" for word in ("limit", "remaining", "reset") for unit in ("requests", "tokens")
    }
    assert named["200"] == timed | limits | {
        "x-chatport-clamped",
        "x-chatport-replayed",
        "x-chatport-target",
        "x-chatport-attempts",
        "x-chatport-fallback",
    }
    assert named["400"] == named["413"] == timed
    assert named["401"] == timed | {"WWW-Authenticate"}
    assert named["503"] == timed | limits | {"retry-after", "retry-after-ms"}
    assert named["429"] == named["503"] | {"x-should-retry"}


def test_every_path_tells_its_methods_and_every_reply_its_request() -> None:
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            assert "Allow" in operation["responses"]["405"]["headers"]
            assert all("x-request-id" in response["headers"] for response in operation["responses"].values())


def test_the_server_is_the_one_that_was_asked() -> None:
    assert [server["url"] for server in DOCUMENT["servers"]] == ["/"]
