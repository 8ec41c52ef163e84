"""What the original's description and its SDK say a reply looks like.

The description (OpenAPI 3.1, so JSON Schema 2020-12) lies beside the checkout, not in it; without it the SDK's own
models still check every reply. In CI it must be there.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionDeleted, ChatCompletionStoreMessage
from openai.types.model import Model
from pydantic import BaseModel
from referencing import Registry, Resource

DESCRIPTION = Path(__file__).resolve().parents[3] / "shared" / "openai-openapi-chat.json"

SDK_MODELS: dict[str, type[BaseModel]] = {
    "CreateChatCompletionResponse": ChatCompletion,
    "CreateChatCompletionStreamResponse": ChatCompletionChunk,
    "ChatCompletionDeleted": ChatCompletionDeleted,
    "Model": Model,
    "StoredMessage": ChatCompletionStoreMessage,
}


def as_json_schema(node: Any) -> Any:
    """The description writes some `null`s in the manner of OpenAPI 3.0, which JSON Schema does not know."""
    if isinstance(node, list):
        return [as_json_schema(each) for each in node]
    if not isinstance(node, dict):
        return node
    plain = {key: as_json_schema(value) for key, value in node.items() if key != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if node.get("nullable") is True else plain


@cache
def published(name: str) -> Draft202012Validator | None:
    """A validator of one schema of the description; None where the description is not at hand."""
    if not DESCRIPTION.exists():
        if "CI" in os.environ:
            pytest.fail(f"{DESCRIPTION.name} must lie in shared/ beside the checkout")
        return None
    description = as_json_schema(json.loads(DESCRIPTION.read_text(encoding="utf-8")))
    registry: Registry[Any] = Registry().with_resource("urn:openai", Resource.opaque(description))
    return Draft202012Validator({"$ref": f"urn:openai#/components/schemas/{name}"}, registry=registry)


def check(name: str, reply: Any) -> None:
    """Fails unless the reply is what the description's schema, and the SDK's own type, take."""
    validator = published(name) if name != "StoredMessage" else None
    if validator is not None:
        faults = [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(reply)]
        assert not faults, "\n".join(faults)
    if name in SDK_MODELS:
        SDK_MODELS[name].model_validate_json(json.dumps(reply), strict=True)
