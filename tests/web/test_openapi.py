"""The description says what is served: each route, its messages, its errors."""

from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
import pytest

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
