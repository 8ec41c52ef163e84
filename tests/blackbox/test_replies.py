"""contract.md §9 and §12: the keys of a reply, the four keys of an error, one row a case.

Every reply these tests read goes through `check_completion` or `refusal`, which hold the rules common to all: the
published schema, the SDK's own types, the keys that are always there.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from support.asking import HELLO, Api, joined_logprobs


class TestAReply:
    def test_its_outside(self, api: Api) -> None:
        before = int(time.time())
        reply = api.completion()
        assert reply["object"] == "chat.completion"
        assert before <= reply["created"] <= time.time()
        assert reply["model"] == "echo"
        assert reply["service_tier"] == "default"

    def test_its_ids_differ(self, api: Api) -> None:
        assert len({api.completion()["id"] for _ in range(5)}) == 5

    def test_its_id_leads_to_its_request(self, api: Api) -> None:
        for reply in (api.post({}), api.post({"stream": True})):
            assert reply.headers["x-request-id"].replace("req_", '"id":"chatcmpl-') in reply.text

    def test_the_fingerprint_is_stable(self, api: Api) -> None:
        assert api.completion()["system_fingerprint"] == api.completion()["system_fingerprint"]
        assert api.completion(model="poem")["system_fingerprint"] != api.completion()["system_fingerprint"]

    def test_an_alias_names_the_model_that_answered(self, api: Api) -> None:
        assert api.completion(model="gpt-4")["model"] in {"gpt-4", "echo"}

    def test_the_message(self, api: Api) -> None:
        choice = api.completion()["choices"][0]
        assert choice["message"] == {
            "role": "assistant",
            "content": "one two three four five",
            "refusal": None,
            "annotations": [],
        }
        assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)

    @pytest.mark.parametrize("count", [1, 2, 5, 128])
    def test_as_many_choices_as_asked(self, api: Api, count: int) -> None:
        reply = api.completion(n=count)
        one = api.completion()["usage"]
        assert reply["usage"]["prompt_tokens"] == one["prompt_tokens"]
        assert reply["usage"]["completion_tokens"] == one["completion_tokens"] * count

    @pytest.mark.parametrize("top", [0, 1, 5, 20])
    def test_logprobs(self, api: Api, top: int) -> None:
        choice = api.completion(logprobs=True, top_logprobs=top)["choices"][0]
        assert set(choice["logprobs"]) == {"content", "refusal"}
        items = choice["logprobs"]["content"]
        assert joined_logprobs(items) == choice["message"]["content"]
        for item in items:
            assert set(item) == {"token", "logprob", "bytes", "top_logprobs"}
            assert item["logprob"] <= 0
            others = [other["logprob"] for other in item["top_logprobs"]]
            assert len(others) <= top
            assert others == sorted(others, reverse=True)

    def test_logprobs_without_top(self, api: Api) -> None:
        items = api.completion(logprobs=True)["choices"][0]["logprobs"]["content"]
        assert items
        assert all(item["top_logprobs"] == [] for item in items)


Expected = tuple[int, str, str | None, str | None]
"""Status, type, code, param."""

INVALID = (400, "invalid_request_error")

ERRORS: dict[str, tuple[dict[str, Any], Expected, str]] = {
    "missing": (
        {"messages": ...},
        (*INVALID, "missing_required_parameter", "messages"),
        "messages",
    ),
    "type": ({"n": "2"}, (*INVALID, "invalid_type", "n"), '"2"'),
    "decimal-max": ({"top_p": 1.5}, (*INVALID, "decimal_above_max_value", "top_p"), "1.5"),
    "decimal-min": ({"top_p": -1}, (*INVALID, "decimal_below_min_value", "top_p"), "-1"),
    "integer-max": ({"n": 129}, (*INVALID, "integer_above_max_value", "n"), "128"),
    "integer-min": ({"max_tokens": -1}, (*INVALID, "integer_below_min_value", "max_tokens"), "-1"),
    "enum": ({"verbosity": "loud"}, (*INVALID, "invalid_value", "verbosity"), "loud"),
    "pattern": (
        {"messages": [{**HELLO[0], "name": "a b"}]},
        (*INVALID, "invalid_value", "messages[0].name"),
        "a b",
    ),
    "array-empty": ({"messages": []}, (*INVALID, "empty_array", "messages"), "messages"),
    "array-long": ({"stop": list("abcde")}, (*INVALID, "array_above_max_length", "stop"), "4"),
    "string-long": (
        {"safety_identifier": "x" * 65},
        (*INVALID, "string_above_max_length", "safety_identifier"),
        "64",
    ),
    "object-large": (
        {"metadata": {f"k{i}": "" for i in range(17)}},
        (*INVALID, "object_above_max_properties", "metadata"),
        "16",
    ),
    "unknown-field": ({"colour": 1}, (*INVALID, "unknown_parameter", "colour"), "colour"),
    "model": ({"model": "gpt-9"}, (404, "not_found", "model_not_found", "model"), "gpt-9"),
    "rate": ({"model": "busy"}, (429, "rate_limit_exceeded", "rate_limit_exceeded", None), ""),
    "internal": ({"model": "broken"}, (500, "api_error", None, None), ""),
    "overloaded": ({"model": "down"}, (503, "service_unavailable", "service_unavailable", None), ""),
}


@pytest.mark.parametrize(("fields", "expected", "said"), ERRORS.values(), ids=ERRORS)
def test_errors(api: Api, fields: dict[str, Any], expected: Expected, said: str) -> None:
    refused = api.refusal(**fields)
    assert refused[:4] == expected
    assert said in refused.message
