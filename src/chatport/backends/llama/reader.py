"""What a model writes, taken apart while it writes: thoughts, text, calls of tools.

Written as a generator that asks for more where it has read all, so that an answer can be read from top to bottom. What
is not clear yet is held back: a part of a mark, white space that begins an answer (it is dropped before a call and
after a thought), a call that so far says the same as an earlier one. A call that says the same to its end is dropped
and ends the turn: a small model would repeat it for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct

from chatport.backends.llama.calls import CUSTOM_TRIGGER, CallFormat
from chatport.backends.llama.reasoning import Thinking
from chatport.backends.llama.scanner import CallScanner, Mark, Named, Token, Written
from chatport.backends.llama.stops import StopFilter
from chatport.backends.llama.tape import Piece, Tape, first_of, open_end


class Thought(Struct, frozen=True):
    """More of what the model thinks before it answers."""

    text: str


class CallBegun(Struct, frozen=True):
    """A call of this tool; its text follows."""

    index: int
    name: str
    custom: bool


class CallText(Struct, frozen=True):
    """More of a call's arguments, or of a custom tool's input."""

    index: int
    text: str
    custom: bool


Saying: TypeAlias = Piece | Thought | CallBegun | CallText


class Call(Struct):
    """A call as far as it was made."""

    name: str
    custom: bool
    text: str = ""
    shown: bool = False
    whole: bool = False


class Reading(Struct, frozen=True, kw_only=True):
    """How an answer is to be read."""

    form: CallFormat
    functions: bool = False
    """Whether it may hold calls of functions."""
    customs: bool = False
    """Whether it may hold calls of custom tools."""
    several: bool = False
    thinking: Thinking | None = None
    thinks_already: bool = False
    """The prompt has opened the thought."""
    stops: Sequence[str] = ()
    """The client's; they act on text alone."""
    must_call: bool = False
    """There is no text before the first call, so that what looks like it is a trigger that was cut."""

    @property
    def triggers(self) -> list[str]:
        """What begins calls in running text."""
        return [CUSTOM_TRIGGER] * self.customs + [self.form.trigger] * (self.functions and bool(self.form.trigger))

    @property
    def may_begin_with_call(self) -> bool:
        """Whether a call may begin the answer without any trigger."""
        return self.functions and not self.form.trigger


class Reader:
    """Push what the model writes; `say` is called with what it means."""

    def __init__(self, reading: Reading, say: Callable[[Saying], None]) -> None:
        self.calls: list[Call] = []
        """Made so far; the last may not be whole."""
        self.stopped = False
        """A stop sequence came: the answer is over, and not whole."""
        self.over = False
        """The answer is over, whatever the model would go on with."""
        self.thinking = reading.thinks_already
        self._reading = reading
        self._say = say
        self._triggers = reading.triggers
        self._stop = StopFilter(reading.stops)
        self._tape = Tape()
        self._blank: list[Piece] = []
        self._holds_blank = reading.functions or reading.customs
        self._ended = False
        self._script = self._read()
        next(self._script)

    def push(self, piece: Piece) -> None:
        """What the model writes next; nothing is said of it once the answer is over. Raises NoCall."""
        self._tape.push(piece)
        next(self._script, None)

    def end(self) -> None:
        """The model writes no more: what was held back is shown, but for a call that has no name yet."""
        self._ended = True
        next(self._script, None)

    # --- The answer, from its first character to its last -------------------------------------------------------------

    def _read(self) -> Generator[None, None, None]:
        if self._reading.thinking is not None:
            yield from self._thought(self._reading.thinking)
        if not self._reading.may_begin_with_call or not (yield from self._begins_with_call()):
            yield from self._text()
        while not self.over and not self._ended:
            yield from self._calls()
            yield from self._gap()
        self.over = True
        self._finish_text()

    def _more(self) -> Generator[None, None, bool]:
        """Waits for more; False: there is none."""
        if not self._ended:
            yield
        return not self._ended

    def _thought(self, marks: Thinking) -> Generator[None, None, None]:
        if not self._reading.thinks_already and not (yield from self._begins_with(marks.opens)):
            return
        self.thinking = True
        while (end := self._tape.text.find(marks.closes)) < 0:
            self._think(self._tape.whole(len(self._tape.text) - open_end(self._tape.text, [marks.closes])))
            if not (yield from self._more()):
                self._think(self._tape.rest())
                return
        self._think(self._tape.exactly(end))
        self._drop(len(marks.closes))
        self.thinking = False
        yield from self._skip_blank()

    def _skip_blank(self) -> Generator[None, None, None]:
        while True:
            text = self._tape.text
            self._drop(len(text) - len(text.lstrip()))
            if self._tape.text or not (yield from self._more()):
                return

    def _begins_with(self, mark: str) -> Generator[None, None, bool]:
        """Whether the answer does, white space aside; then that is read."""
        while True:
            text = self._tape.text
            begun = text.lstrip()
            if begun.startswith(mark):
                self._drop(len(text) - len(begun) + len(mark))
                return True
            if not mark.startswith(begun) or not (yield from self._more()):
                return False

    def _begins_with_call(self) -> Generator[None, None, bool]:
        """Whether a family's calls that have no trigger begin the answer; they are left on the tape."""
        start = self._reading.form.before_name
        if not (yield from self._begins_with(start)):
            return False
        self._tape.put_back(start)
        return True

    def _text(self) -> Generator[None, None, None]:
        """Text up to a trigger, which is left on the tape; without triggers, all that comes."""
        while (at := first_of(self._tape.text, self._triggers)) is None:
            self._show(self._tape.whole(len(self._tape.text) - open_end(self._tape.text, self._triggers)))
            if self.over or not (yield from self._more()):
                self._show(self._tape.rest())
                return
        self._show(self._tape.exactly(at))
        self._blank.clear()

    def _calls(self) -> Generator[None, None, None]:
        scanner = CallScanner(self._reading.form)
        while not self.over:
            text = "".join(piece.text for piece in self._tape.rest())
            for token in scanner.push(text):
                if token is Mark.OVER:
                    self._tape.push(Piece(scanner.rest))
                    return
                self._call(token)
            if not (yield from self._more()):
                self._reveal()
                return

    def _gap(self) -> Generator[None, None, None]:
        """After a call: white space and another trigger, or the turn is over."""
        while not self.over:
            text = self._tape.text.lstrip()
            if any(text.startswith(trigger) for trigger in self._triggers):
                self._drop(len(self._tape.text) - len(text))
                return
            if not any(trigger.startswith(text) for trigger in self._triggers):
                self.over = True
            elif not (yield from self._more()):
                return

    # --- What is said of it -------------------------------------------------------------------------------------------

    def _think(self, pieces: Iterable[Piece]) -> None:
        if text := "".join(piece.text for piece in pieces):
            self._say(Thought(text))

    def _show(self, pieces: Iterable[Piece]) -> None:
        """Text, as far as the client's stop sequences let it through; the first white space only before more."""
        for piece in pieces:
            if self._reading.must_call:
                continue
            if self._holds_blank:
                self._blank.append(piece)
                if _is_blank(self._blank):
                    continue
                self._holds_blank = False
                self._through_stops(self._unblanked())
            else:
                self._through_stops([piece])

    def _unblanked(self) -> list[Piece]:
        held, self._blank = self._blank, []
        return held

    def _through_stops(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if self.stopped:
                return
            for shown in self._stop.push(piece):
                if shown.text or shown.items:
                    self._say(shown)
            self.stopped = self.over = self._stop.hit

    def _finish_text(self) -> None:
        if not self.calls:
            self._through_stops(self._unblanked())
        if not self.stopped:
            for piece in self._stop.end():
                self._say(piece)

    def _call(self, token: Token) -> None:
        match token:
            case Named(name=name, custom=custom):
                self.calls.append(Call(name, custom))
                self._reveal_if_new()
            case Written(text=text):
                self.calls[-1].text += text
                if self.calls[-1].shown:
                    self._say(CallText(len(self.calls) - 1, text, self.calls[-1].custom))
                else:
                    self._reveal_if_new()
            case Mark.MADE:
                self._made()

    def _made(self) -> None:
        call = self.calls[-1]
        if any(self._same(call, earlier) and call.text == earlier.text for earlier in self.calls[:-1]):
            self.calls.pop()
            self.over = True
            return
        self._reveal()
        call.whole = True
        self.over = not self._reading.several

    def _reveal_if_new(self) -> None:
        """Shows the call as soon as it can't become a repetition of an earlier one."""
        call = self.calls[-1]
        if not any(self._same(call, earlier) and earlier.text.startswith(call.text) for earlier in self.calls[:-1]):
            self._reveal()

    def _reveal(self) -> None:
        if not self.calls or self.calls[-1].shown:
            return
        call, index = self.calls[-1], len(self.calls) - 1
        call.shown = True
        self._say(CallBegun(index, call.name, call.custom))
        if call.text:
            self._say(CallText(index, call.text, call.custom))

    @staticmethod
    def _same(one: Call, other: Call) -> bool:
        return (one.name, one.custom) == (other.name, other.custom)

    def _drop(self, characters: int) -> None:
        for _ in self._tape.exactly(characters):
            pass


def _is_blank(pieces: Iterable[Piece]) -> bool:
    return not any(piece.text.strip() for piece in pieces)
