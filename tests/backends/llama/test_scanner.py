"""Calls read while they are written: whatever the pieces, the same calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.backends.llama.calls import FORMATS, CallFormat, custom_call
from chatport.backends.llama.scanner import CallScanner, Mark, Named, NoCall, Written
from support.splitting import split

FORMS = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
ARGUMENTS = st.dictionaries(
    st.text(max_size=5), st.recursive(st.none() | st.integers() | st.text(), st.lists), max_size=4
)


def scan(form: CallFormat, *pieces: str) -> tuple[list[tuple[str, str]], str]:
    """(name, text) of each whole call, and what came behind the last."""
    scanner = CallScanner(form)
    calls: list[tuple[str, str]] = []
    text: list[str] = []
    name = ""
    for position, piece in enumerate(pieces):
        for token in scanner.push(piece):
            match token:
                case Named():
                    name, text = token.name, []
                case Written():
                    assert token.text, "nothing was said with many words"
                    text.append(token.text)
                case Mark.MADE:
                    calls.append((name, "".join(text)))
                case Mark.OVER:
                    return calls, scanner.rest + "".join(pieces[position + 1 :])
    return calls, ""


@FORMS
@given(ARGUMENTS, st.booleans(), st.data())
def test_any_split_gives_the_same_call(
    form: CallFormat, arguments: dict[str, Any], ascii_only: bool, data: st.DataObject
) -> None:
    said = json.dumps(arguments, ensure_ascii=ascii_only)
    assert scan(form, *split(form.written("look_up", said) + "\n", data)) == ([("look_up", said)], "\n")


@pytest.mark.parametrize("form", [form for form in FORMATS if form.between], ids=lambda form: form.name)
@given(st.data())
def test_several_calls_in_a_row(form: CallFormat, data: st.DataObject) -> None:
    call = '{"name": "one", "KEY": {"a": "}{\\"]"}}'.replace("KEY", form.arguments_key)
    text = f"{form.trigger}{form.opens}{call}{form.between}{call}{form.closes} and more"
    assert scan(form, *split(text, data)) == ([("one", '{"a": "}{\\"]"}')] * 2, " and more")


@FORMS
@given(st.text().filter(lambda text: "</custom_tool_call>" not in text), st.data())
def test_the_input_of_a_custom_tool_is_any_text(form: CallFormat, text: str, data: st.DataObject) -> None:
    assert scan(form, *split(custom_call("shell", text) + "!", data)) == ([("shell", text)], "!")


@FORMS
@pytest.mark.parametrize("text", ["<tool_call>\nHello", "[TOOL_CALLS]{", '{"name": "x"} ', "something else entirely"])
def test_what_is_no_call_is_told(form: CallFormat, text: str) -> None:
    with pytest.raises(NoCall):
        scan(form, text + "?" * 40)


@FORMS
def test_arguments_come_as_they_are_written(form: CallFormat) -> None:
    scanner = CallScanner(form)
    begun = form.written("f", "")[: -len("}" + form.closes)]
    assert list(scanner.push(begun)) == [Named("f")]
    assert list(scanner.push('{"a": "x')) == [Written('{"a": "x')]
    assert list(scanner.push("\\")) == [], "half an escape is kept"
    assert list(scanner.push('""}')) == [Written('\\""}')]
