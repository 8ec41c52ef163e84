"""What is told of an answer, by a clock that the test turns."""

from __future__ import annotations

from chatport.cli.chat.answers import Choice, Counted, Event, Said
from chatport.cli.chat.screen import clean
from chatport.cli.chat.turn import Turn


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def saying(text: str) -> Event:
    return Event(choices=[Choice(delta=Said(content=text))])


def test_speed_is_measured_from_the_first_token_on() -> None:
    clock = Clock()
    turn = Turn(clock)
    turn.add(Event(choices=[Choice(delta=Said(content=""))]))
    for at, text in ((100.5, "one "), (101.0, "two "), (101.5, "three")):
        clock.now = at
        turn.add(saying(text))
    clock.now = 109.0
    turn.add(Event(usage=Counted(prompt_tokens=7, completion_tokens=3)))
    assert turn.text == "one two three"
    assert turn.summary == "7 + 3 tokens · 2.0 tokens/s · first after 0.50 s"


def test_what_is_not_known_is_not_told() -> None:
    clock = Clock()
    turn = Turn(clock)
    assert (turn.summary, turn.cut) == ("", None)
    clock.now = 102.0
    turn.add(saying("all at once"))
    assert turn.summary == "first after 2.00 s"
    turn.add(Event(choices=[Choice(finish_reason="stop")], usage=Counted(prompt_tokens=1, completion_tokens=5)))
    assert (turn.summary, turn.cut) == ("1 + 5 tokens · first after 2.00 s", None)


def test_a_cut_answer_says_why() -> None:
    turn = Turn()
    turn.add(Event(choices=[Choice(delta=Said(content="a"), finish_reason="length")]))
    assert turn.cut == "cut: the limit on tokens, or the model's window, is reached"


def test_no_control_character_is_shown() -> None:
    every = "".join(map(chr, range(0xA0)))
    shown = clean(every)
    assert [character for character in shown if not character.isprintable()] == ["\t", "\n"]
    assert clean("a\r\nb\x1b[31m") == "a\nb␛[31m"
    assert clean("春天 👩‍🌾 é") == "春天 👩‍🌾 é"
