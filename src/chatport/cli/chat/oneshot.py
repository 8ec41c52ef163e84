"""One question from a pipe, one answer to stdout and nothing else there."""

from __future__ import annotations

import sys
from contextlib import closing

from chatport.cli.chat.answers import Server
from chatport.cli.chat.conversation import Conversation
from chatport.cli.chat.errors import ChatError
from chatport.cli.chat.request import Settings, request_for
from chatport.cli.chat.screen import clean
from chatport.cli.chat.turn import Turn
from chatport.cli.endings import Ending, end


def read_question() -> str:
    """All of stdin. Ends the program where that is no message."""
    if sys.stdin.isatty():
        sys.stderr.write("The answer goes elsewhere: type one message, and end it with Ctrl-D on a line of its own.\n")
    try:
        text = sys.stdin.buffer.read().decode("utf-8").strip()
    except UnicodeDecodeError as error:
        end(Ending.USAGE, f"What came on stdin is not UTF-8, from byte {error.start} on.")
    if not text:
        end(Ending.USAGE, "There was no message on stdin.")
    return text


def answer_once(server: Server, model: str, conversation: Conversation, settings: Settings) -> None:
    """Prints the answer as it comes: without control characters on a terminal, elsewhere exactly. Raises ChatError."""
    shown = clean if sys.stdout.isatty() else str
    turn = Turn()
    request = request_for(model, conversation.messages, settings)
    try:
        with closing(server.answer(request)) as events:
            for event in events:
                turn.add(event)
                sys.stdout.write(shown(event.text))
                sys.stdout.flush()
    finally:
        if turn.text and not turn.text.endswith("\n"):
            sys.stdout.write("\n")
    if not turn.text:
        raise ChatError("The answer is empty.")
    if turn.cut is not None:
        sys.stderr.write(f"note: the answer is {turn.cut}.\n")
