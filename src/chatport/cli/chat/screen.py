"""What a chat puts on the terminal: text that can't steer it, and remarks that stand back behind the answer."""

from __future__ import annotations

import typer

from chatport.cli.chat.answers import Event

CONTROLS: dict[int, str] = (
    {code: chr(0x2400 + code) for code in range(0x20)}
    | {0x7F: "\u2421"}
    | dict.fromkeys(range(0x80, 0xA0), "\ufffd")
    | {ord("\t"): "\t", ord("\n"): "\n", ord("\r"): ""}
)
"""Control characters and what is shown in their place, for ESC `␛`: a model could write sequences that set the title,
move the cursor over what was said, or make some terminals answer as if the person had typed."""


def clean(text: str) -> str:
    """The text without control characters, but for line feeds and tabs."""
    return text.translate(CONTROLS)


def say(text: str) -> None:
    """A line of ours."""
    typer.echo(clean(text))


def remark(text: str) -> None:
    """A line that stands back."""
    typer.secho(clean(text), dim=True)


def complain(text: str) -> None:
    """A line about what went wrong."""
    typer.echo(f"error: {clean(text)}", err=True)


class AnswerView:
    """Shows an answer as it comes, reasoning dimmed above it."""

    def __init__(self) -> None:
        self._last = "\n"
        self._in_reasoning = False

    def show(self, event: Event) -> None:
        if reasoning := clean(event.reasoning):
            self._in_reasoning = True
            self._put(reasoning, dim=True)
        if text := clean(event.text):
            if self._in_reasoning:
                self._in_reasoning = False
                self.end_line()
                self._put("\n")
            self._put(text)

    def end_line(self) -> None:
        """What follows begins on a line of its own."""
        if self._last != "\n":
            self._put("\n")

    def _put(self, text: str, *, dim: bool = False) -> None:
        typer.echo(typer.style(text, dim=True) if dim else text, nl=False)
        self._last = text[-1]
