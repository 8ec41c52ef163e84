"""An answer taken apart: whatever the pieces, the same thoughts, text and calls."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.backends.llama.calls import FORMATS, OURS, CallFormat, custom_call
from chatport.backends.llama.reader import CallBegun, CallText, Reader, Reading, Saying, Thought
from chatport.backends.llama.reasoning import MARKS
from chatport.backends.llama.scanner import NoCall
from chatport.backends.llama.tape import Piece
from chatport.wire.chat import TokenLogprob
from support.splitting import split

CALLING = Reading(form=OURS, functions=True, customs=True, several=True)
THINKING = Reading(form=OURS, thinking=MARKS[0])
FORMS = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)


class Heard:
    """What a reader says, joined."""

    def __init__(self, reading: Reading, *pieces: str, ended: bool = True) -> None:
        self.thought = self.text = ""
        self.calls: list[list[Any]] = []
        self.reader = Reader(reading, self.hear)
        for piece in pieces:
            self.reader.push(Piece(piece))
        if ended:
            self.reader.end()

    def hear(self, said: Saying) -> None:
        match said:
            case Piece(text=text):
                assert not self.calls, "text after a call"
                self.text += text
            case Thought(text=text):
                assert not self.text, "a thought after text"
                self.thought += text
            case CallBegun(index=index, name=name):
                assert index == len(self.calls)
                self.calls.append([name, ""])
            case CallText(index=index, text=text):
                assert index == len(self.calls) - 1
                self.calls[-1][1] += text


def call(name: str = "f", arguments: str = '{"a": 1}', form: CallFormat = OURS) -> str:
    return form.written(name, arguments)


@given(st.text(), st.data())
def test_without_anything_to_look_for_all_is_text(text: str, data: st.DataObject) -> None:
    heard = Heard(Reading(form=OURS), *split(text, data))
    assert (heard.text, heard.calls, heard.thought) == (text, [], "")


@pytest.mark.parametrize(
    ("said", "thought", "text"),
    [
        ("<think>\nwhy\n</think>\n\nbecause", "\nwhy\n", "because"),
        ("\n<think>a</think>b<think>c", "a", "b<think>c"),
        ("no <think> thought", "", "no <think> thought"),
        ("<thin", "", "<thin"),
        ("<think>cut sho", "cut sho", ""),
        ("<think>cut </th", "cut </th", ""),
        ("", "", ""),
    ],
)
@given(st.data())
def test_thoughts(said: str, thought: str, text: str, data: st.DataObject) -> None:
    heard = Heard(THINKING, *split(said, data))
    assert (heard.thought, heard.text) == (thought, text)


@given(st.data())
def test_a_thought_that_the_prompt_has_begun(data: st.DataObject) -> None:
    reading = msgspec.structs.replace(THINKING, thinks_already=True)
    heard = Heard(reading, *split("why</think>\nso", data))
    assert (heard.thought, heard.text) == ("why", "so")


def test_it_says_when_it_is_thinking() -> None:
    heard = Heard(THINKING, "<think>a", ended=False)
    assert heard.reader.thinking
    heard.reader.push(Piece("</think>b"))
    assert not heard.reader.thinking


@FORMS
@given(st.data())
def test_text_and_then_calls(form: CallFormat, data: st.DataObject) -> None:
    before = "Let me see. " if form.trigger else ""
    reading = msgspec.structs.replace(CALLING, form=form)
    said = f"{before}{call('f', '{}', form)}"
    heard = Heard(reading, *split(f"{said}\n", data))
    assert (heard.text, heard.calls) == (before, [["f", "{}"]])
    assert [made.whole for made in heard.reader.calls] == [True]


@given(st.data())
def test_another_call_may_follow_but_nothing_else(data: st.DataObject) -> None:
    said = f"\n{call('f')}\n{call('g')}{custom_call('h', 'x')} That was all. {call('i')}"
    heard = Heard(CALLING, *split(said, data))
    assert (heard.text, heard.calls) == ("", [["f", '{"a": 1}'], ["g", '{"a": 1}'], ["h", "x"]])
    assert heard.reader.over


@given(st.data())
def test_a_call_that_is_said_again_ends_the_turn(data: st.DataObject) -> None:
    said = "\n".join([call(), call("f", '{"a": 12}'), call(), call("g")])
    heard = Heard(CALLING, *split(said, data))
    assert heard.calls == [["f", '{"a": 1}'], ["f", '{"a": 12}']]
    assert heard.reader.over
    assert all(made.whole for made in heard.reader.calls)


def test_where_one_call_is_wanted_the_first_is_the_last() -> None:
    heard = Heard(msgspec.structs.replace(CALLING, several=False), call(), call("g"), ended=False)
    assert heard.reader.over
    assert heard.calls == [["f", '{"a": 1}']]


@pytest.mark.parametrize(
    ("said", "text", "calls"),
    [
        ("so <tool_ca", "so <tool_ca", []),
        ("so <tool_call>\n{", "so ", []),
        (call()[:30], "", [["f", ""]]),
        (call()[:-15], "", [["f", '{"a": 1']]),
        (f"{call()}\n{call()[:-15]}", "", [["f", '{"a": 1}'], ["f", '{"a": 1']]),
        ("  \n", "  \n", []),
    ],
)
def test_what_is_cut_is_told_as_far_as_it_went(said: str, text: str, calls: list[list[str]]) -> None:
    heard = Heard(CALLING, *said)
    assert (heard.text, heard.calls) == (text, calls)


@FORMS
def test_where_a_call_is_demanded_a_cut_trigger_is_no_text(form: CallFormat) -> None:
    reading = Reading(form=form, functions=True, must_call=True)
    written = call("f", '{"a": 1}', form)
    for length in range(len(written)):
        heard = Heard(reading, *written[:length])
        assert heard.text == ""
        assert [name for name, _ in heard.calls] in ([], ["f"])


def test_stop_sequences_act_on_text_alone() -> None:
    reading = msgspec.structs.replace(CALLING, stops=["\n", "END"])
    heard = Heard(reading, call(), "\n")
    assert heard.calls == [["f", '{"a": 1}']]
    heard = Heard(reading, "this is the E", "ND and ", call(), ended=False)
    assert (heard.text, heard.calls, heard.reader.stopped, heard.reader.over) == ("this is the ", [], True, True)


def test_what_is_not_offered_is_text() -> None:
    heard = Heard(Reading(form=OURS, customs=True), f"Write {call()}.")
    assert (heard.text, heard.calls) == (f"Write {call()}.", [])


def test_a_broken_promise_is_told() -> None:
    with pytest.raises(NoCall):
        Heard(CALLING, "<tool_call>\nnot at all what was promised")


def test_items_stay_with_their_text() -> None:
    said: list[Saying] = []
    reader = Reader(CALLING, said.append)
    for token in ("Hm", " ok.<tool_c", "all>\n{"):
        item = TokenLogprob(token=token, logprob=-1.0, bytes=list(token.encode()))
        reader.push(Piece(token, [item]))
    pieces = [piece for piece in said if isinstance(piece, Piece)]
    assert "".join(piece.text for piece in pieces) == "Hm ok."
    assert b"".join(bytes(item.bytes or ()) for piece in pieces for item in piece.items) == b"Hm ok."
