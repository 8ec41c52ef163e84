"""Promises checked: by exact numbers, and by no expression of a client's."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from chatport.backends.llama.promises import Strict, json_fault


def fault(schema: Any, value: Any) -> str | None:
    whole = {"type": "object", "properties": {"a": schema}}
    return json_fault(json.dumps({"a": value}), Strict(json.dumps(whole).encode()))


@pytest.mark.parametrize(("step", "value"), [(0.01, 0.29), (0.01, 19.99), (0.1, 1.2), (5, 20), (1e-9, 0.000000003)])
def test_decimals_are_multiples_of_what_they_are(step: float, value: float) -> None:
    assert fault({"multipleOf": step}, value) is None
    assert fault({"multipleOf": step}, value + step / 3) is not None


@pytest.mark.parametrize("pattern", [r"^\\p{L}{3}$", r"^(?<y>[0-9]{4})$", r"^ab\\z", r"^(?:(?:a|a)+[^\\s\\S]|a{26})$"])
def test_patterns_are_the_grammars_business(pattern: str) -> None:
    began = time.monotonic()
    assert fault({"type": "string", "pattern": pattern}, "a" * 26) is None
    assert time.monotonic() - began < 5, "Python ran a client's pattern"


def test_what_is_not_promised_is_told() -> None:
    assert "is not of type" in (fault({"type": "integer"}, "x") or "")
    assert "too short" in (fault({"minLength": 2}, "x") or "")
    assert (json_fault("{", None) or "").startswith("not JSON")
    assert json_fault("[1]", None) is None


def test_what_is_deeper_than_python_can_look_is_left_to_the_grammar() -> None:
    schema = {"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}
    deep = '{"a": ' * 900 + "null" + "}" * 900
    assert json_fault(deep, Strict(json.dumps(schema).encode())) is None
