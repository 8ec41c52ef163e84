"""The conversation at the terminal: each line is a command or a question, until the person leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from chatport.cli.chat.answers import Server
from chatport.cli.chat.conversation import Conversation
from chatport.cli.chat.errors import AnswerBroken, ChatError, FileTrouble
from chatport.cli.chat.prompt import Choices, Prompt, command_of, spoken
from chatport.cli.chat.request import Settings, request_for
from chatport.cli.chat.screen import AnswerView, complain, remark, say
from chatport.cli.chat.turn import Turn
from chatport.store.errors import StoreError

LEAVING = ("/bye", "/exit")

KEYS = """
Enter sends. A backslash before it, or Alt with it, makes a line break; \"\"\" opens a block of several lines and
closes it. Ctrl-C stops an answer; what came of it is kept. Tab completes; arrows and Ctrl-R look through what you
typed before."""
"""The end of `/help`."""


class Session:
    """One person, one server, one conversation; the model may change."""

    def __init__(self, server: Server, model: str, conversation: Conversation, settings: Settings) -> None:
        self._server = server
        self._model = model
        self._conversation = conversation
        self._settings = settings
        self._file: Path | None = None
        """Where this conversation was saved to or loaded from."""

    def run(self, history: Path) -> None:
        """Reads and answers until the person leaves. `history`: the file that keeps what was typed."""
        remark(f"{self._model} at {self._server.url} · /help lists the commands, Ctrl-D ends")
        prompt = Prompt(history, self._choices())
        while True:
            try:
                line = prompt.read()
            except KeyboardInterrupt:
                remark("Ctrl-D or /bye ends the chat.")
                continue
            except EOFError:
                return
            if line.strip() in LEAVING:
                return
            self._heed(line)

    def _heed(self, line: str) -> None:
        """Does what a line says. What goes wrong costs this line, never the conversation."""
        try:
            if (command := command_of(line)) is not None:
                self._obey(*command)
            elif text := spoken(line):
                self._conversation.ask(text)
                self._answer()
        except (ChatError, StoreError) as error:
            complain(str(error))
        except KeyboardInterrupt:
            remark("Stopped.")

    def _obey(self, word: str, argument: str) -> None:
        if (command := COMMANDS.get(word)) is None:
            say(f"There is no command {word}; /help lists those there are. A space before it makes it a message.")
        else:
            command.run(self, argument)

    def _answer(self) -> None:
        """Asks for an answer to the last question and shows it. What came is kept, also where it was cut.

        Raises ChatError, StoreError where nothing came.
        """
        request = request_for(self._model, self._conversation.messages, self._settings)
        turn, view = Turn(), AnswerView()
        try:
            with closing(self._server.answer(request)) as events:
                for event in events:
                    turn.add(event)
                    view.show(event)
        except KeyboardInterrupt:
            view.end_line()
            remark(f"Stopped. {_kept(turn)}")
        except AnswerBroken as error:
            view.end_line()
            complain(f"{error} {_kept(turn)}")
        else:
            view.end_line()
            if turn.cut is not None:
                remark(f"({turn.cut})")
            elif not turn.text:
                complain(f"The answer is empty. {_kept(turn)}")
        finally:
            self._conversation.answer(turn.text)
        if turn.summary:
            remark(turn.summary)

    def _choices(self) -> Choices:
        choices: dict[str, Callable[[], Iterable[str]] | None] = dict.fromkeys((*COMMANDS, *LEAVING), list)
        return choices | {"/model": lambda: self._server.known, "/save": None, "/load": None}

    # --- Commands ----------------------------------------------------------------------------------------------------

    def _help(self, _: str) -> None:
        for word, command in COMMANDS.items():
            say(f"  {f'{word} {command.argument}'.strip():16} {command.about}")
        say(f"  {', '.join(LEAVING):16} End the chat, as Ctrl-D does.")
        say(KEYS)

    def _system(self, text: str) -> None:
        if text == "-":
            self._conversation.system = None
            say("There is no system prompt any more.")
        elif text:
            self._conversation.system = text
            say("The system prompt is set; it holds from the next answer on.")
        else:
            say(self._conversation.system or "There is no system prompt. /system TEXT sets one.")

    def _choose_model(self, name: str) -> None:
        if not name:
            for known in self._server.models():
                say(f"{'*' if known == self._model else ' '} {known}")
            return
        self._model = self._server.model(name)
        say(f"{self._model} answers from now on.")

    def _save(self, name: str) -> None:
        path = _path(name) if name else self._file or Path(f"chat-{datetime.now():%Y%m%d-%H%M%S}.json")  # noqa: DTZ005  the person's own time
        if path.exists() and path != self._file:
            raise FileTrouble(f"{path} is there already. Choose another name.")
        self._conversation.save(path, self._model)
        self._file = path
        say(f"Saved to {path}. /load {path} brings it back.")

    def _load(self, name: str) -> None:
        if not name:
            raise FileTrouble("Which file? /load FILE")
        path = _path(name)
        model = self._conversation.load(path)
        self._file = path
        say(f"Loaded {len(self._conversation.turns)} messages from {path}.")
        if model != self._model:
            self._choose_model(model)

    def _clear(self, _: str) -> None:
        self._conversation.clear()
        self._file = None
        say("Forgotten. The system prompt stays." if self._conversation.system else "Forgotten.")

    def _retry(self, _: str) -> None:
        if self._conversation.reopen():
            self._answer()
        else:
            say("There is no question yet.")


def _path(name: str) -> Path:
    """The file of that name, `~` understood. Raises FileTrouble for the home of nobody."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise FileTrouble(f"{name}: {error}") from None


def _kept(turn: Turn) -> str:
    """What becomes of an answer that is not whole."""
    kept = "What came of the answer is kept." if turn.text else "The question was not answered."
    return f"{kept} /retry asks once more."


class Command(NamedTuple):
    argument: str
    about: str
    run: Callable[[Session, str], None]


COMMANDS = {
    "/help": Command("", "List the commands and keys.", Session._help),
    "/system": Command("[TEXT]", "Set the system prompt, or show it; - removes it.", Session._system),
    "/model": Command("[NAME]", "Let another model answer, or list them.", Session._choose_model),
    "/save": Command("[FILE]", "Save the conversation as JSON.", Session._save),
    "/load": Command("FILE", "Go on with a saved one.", Session._load),
    "/clear": Command("", "Forget what was said.", Session._clear),
    "/retry": Command("", "Answer the last question once more.", Session._retry),
}
"""What may be entered instead of a message, and what is done."""
