"""A person at a terminal, talking with the real server through the real program."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from chatport.cli.chat.session import COMMANDS
from support.canned import canned, delta, reply, stream
from support.chats import Chats
from support.terminal import ALT_ENTER, CTRL_C, CTRL_D, PATIENCE, TAB, UP, Terminal, pasted

PROMPT = ">>>"


def ask(terminal: Terminal, line: str) -> str:
    """Sends a line to a model and waits for the next prompt; what was shown until the line of usage."""
    terminal.enter(line)
    shown = terminal.expect(" · first after ")
    terminal.expect(PROMPT)
    return shown


def order(terminal: Terminal, line: str, answer: str) -> str:
    """Sends a command and waits for its answer and the next prompt; what was shown in between."""
    terminal.enter(line)
    terminal.expect(answer)
    return terminal.expect(PROMPT)


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def test_a_conversation_of_two_turns(chats: Chats) -> None:
    with chats.at_terminal("--system", "Be brief.") as terminal:
        terminal.expect(f"echo at {chats.server.url}/v1")
        terminal.expect(PROMPT)
        # The scripted model counts one token for each message and one for each word.
        assert "6 + 2 tokens" in ask(terminal, "one two")
        assert "11 + 1 tokens" in ask(terminal, "three")
        order(terminal, "/save talk.json", "Saved to talk.json.")
        terminal.type(CTRL_D)
        assert terminal.ended() == 0
    saved = json.loads((chats.cwd / "talk.json").read_text())
    assert saved["model"] == "echo"
    assert [(message["role"], message["content"]) for message in saved["messages"]] == [
        ("system", "Be brief."),
        ("user", "one two"),
        ("assistant", "one two"),
        ("user", "three"),
        ("assistant", "three"),
    ]
    assert (chats.cwd / "talk.json").stat().st_mode & 0o777 == 0o600


def test_the_key_is_short_lived_named_and_revoked_at_the_end(chats: Chats) -> None:
    with chats.at_terminal() as terminal:
        terminal.expect(PROMPT)
        of_this_chat = f", process {terminal.process.pid}"
        (key,) = (entry for entry in chats.minted() if entry["name"].endswith(of_this_chat))
        assert key["state"] == "open"
        assert 0 < key["expires_at"] - time.time() <= 1800
        assert not key["admin"]
        terminal.type(CTRL_D)
        assert terminal.ended() == 0
    assert [entry["state"] for entry in chats.minted() if entry["id"] == key["id"]] == ["revoked"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_key_open(chats: Chats, number: signal.Signals) -> None:
    with chats.at_terminal() as terminal:
        terminal.expect(PROMPT)
        terminal.process.send_signal(number)
        assert terminal.ended() == 130
    assert {key["state"] for key in chats.minted()} == {"revoked"}


@pytest.mark.parametrize("leaving", ["/bye", "/exit"])
def test_words_that_end_it(chats: Chats, leaving: str) -> None:
    with chats.at_terminal() as terminal:
        terminal.expect(PROMPT)
        terminal.enter(leaving)
        assert terminal.ended() == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('"""one\r\r  two"""\r', "one\n\n  two"),
        ('"""\rone\\\rtwo\r"""\r', "one\ntwo"),
        ("one\\\rtwo\r", "one\ntwo"),
        (f"one{ALT_ENTER}two\r", "one\ntwo"),
        (pasted("one \\\ntwo\n  three") + "\r", "one \\\ntwo\n  three"),
        ("  /help\r", "/help"),
        ("春天\r", "春天"),
    ],
    ids=["block", "block with backslash", "backslash", "alt-enter", "paste", "a command's name", "Chinese"],
)
def test_messages_of_several_lines(chats: Chats, keys: str, message: str) -> None:
    with chats.at_terminal() as terminal:
        terminal.expect(PROMPT)
        terminal.type(keys)
        terminal.expect(" · first after ")
        terminal.expect(PROMPT)
        order(terminal, "/save said.json", "Saved")
    assert [entry["content"] for entry in chats.saved("said.json")] == [message, message]


def test_ctrl_c_stops_an_answer_and_keeps_what_came(chats: Chats) -> None:
    with chats.at_terminal("slow") as terminal:
        terminal.expect(PROMPT)
        terminal.enter("Go")
        terminal.expect("tick tock ")
        terminal.type(CTRL_C)
        terminal.expect("Stopped. What came of the answer is kept.")
        terminal.expect(PROMPT)
        order(terminal, "/save cut.json", "Saved")
        question, answer = chats.saved("cut.json")
        assert question["content"] == "Go"
        assert answer["content"].startswith("tick tock ")
        assert len(answer["content"]) < 50
        order(terminal, "/model echo", "echo answers from now on.")
        ask(terminal, "Still there?")
        terminal.type(CTRL_D)
        assert terminal.ended() == 0
    wait_until(lambda: "POST /v1/chat/completions 499" in chats.server.log.read_text(), "the server was not told")


def test_ctrl_c_before_an_answer_begins_leaves_the_question_open(chats: Chats) -> None:
    with chats.at_terminal("silent") as terminal:
        terminal.expect(PROMPT)
        terminal.enter("Go")
        wait_until(lambda: bool(psutil.Process(terminal.process.pid).net_connections()), "the question was not sent")
        terminal.type(CTRL_C)
        terminal.expect("Stopped. The question was not answered. /retry asks once more.")
        terminal.expect(PROMPT)
        order(terminal, "/model echo", "echo answers from now on.")
        ask(terminal, "/retry")
        order(terminal, "/save late.json", "Saved")
    assert [message["content"] for message in chats.saved("late.json")] == ["Go", "Go"]


def test_what_is_no_utf_8_or_no_file_s_name_costs_nothing(chats: Chats) -> None:
    with chats.at_terminal() as terminal:
        terminal.expect(PROMPT)
        terminal.type_bytes(b"a\xffb\r")
        terminal.expect("first after ")
        terminal.expect(PROMPT)
        order(terminal, "/save ~nobody-at-all/x", "error: ~nobody-at-all/x: Could not determine home directory.")
        order(terminal, "/save " + pasted("a\x00b"), "error: Can't write a␀b: no file can have this name.")
        order(terminal, "/load " + pasted("a\x00b"), "error: Can't read a␀b: no file can have this name.")
        order(terminal, "/load /dev/zero", "error: /dev/zero holds no conversation: it has more than")
        order(terminal, "/save odd.json", "Saved")
    assert chats.saved("odd.json")[0]["content"] == "a?b"


def test_an_empty_answer_is_none(chats: Chats) -> None:
    with chats.at_terminal("mute") as terminal:
        terminal.expect(PROMPT)
        order(terminal, "Go", "error: The answer is empty. The question was not answered.")
        order(terminal, "/save mute.json", "Saved")
    assert [message["content"] for message in chats.saved("mute.json")] == ["Go"]


def test_ctrl_c_at_the_prompt_leaves_the_line(chats: Chats) -> None:
    with chats.at_terminal() as terminal:
        terminal.expect(PROMPT)
        terminal.type("half a thou" + CTRL_C)
        terminal.expect("Ctrl-D or /bye ends the chat.")
        terminal.expect(PROMPT)
        ask(terminal, "whole")
        order(terminal, "/save line.json", "Saved")
    assert chats.saved("line.json")[0]["content"] == "whole"


def test_every_command(chats: Chats) -> None:
    with chats.at_terminal() as terminal:
        terminal.expect(PROMPT)
        helped = order(terminal, "/help", "  /help")
        assert all(f"  {word}" in f"  /help{helped}" for word in COMMANDS)
        order(terminal, "/system", "There is no system prompt.")
        order(terminal, '/system """Be\r kind."""', "The system prompt is set")
        order(terminal, "/system", "Be\r\n kind.")
        ask(terminal, "one")
        ask(terminal, "/retry")
        order(terminal, "/save", "Saved to chat-")
        order(terminal, "/save first.json", "Saved to first.json.")
        order(terminal, "/system -", "There is no system prompt any more.")
        listed = order(terminal, "/model", "* echo")
        assert listed.splitlines()[1:5] == ["  parrot", "  slow", "  silent", "  mute"]
        order(terminal, "/model nobody", "There is no model 'nobody'")
        order(terminal, "/model parrot", "parrot answers from now on.")
        order(terminal, "/clear", "Forgotten.")
        order(terminal, "/retry", "There is no question yet.")
        order(terminal, "/save first.json", "first.json is there already.")
        order(terminal, "/save none/such.json", "Can't write none/such.json: No such file or directory.")
        order(terminal, "/load", "Which file?")
        order(terminal, "/load none.json", "Can't read none.json: No such file or directory.")
        order(terminal, "/wat", "There is no command /wat;")
        order(terminal, "/load first.json", "Loaded 2 messages from first.json.")
        ask(terminal, "two")
        order(terminal, "/save", "Saved to first.json.")
    said = [(message["role"], message["content"]) for message in chats.saved("first.json")]
    assert said == [
        ("system", "Be\n kind."),
        ("user", "one"),
        ("assistant", "one"),
        ("user", "two"),
        ("assistant", "two"),
    ]
    assert json.loads((chats.cwd / "first.json").read_text())["model"] == "echo"
    (unnamed,) = chats.cwd.glob("chat-*.json")
    assert len(chats.saved(unnamed.name)) == 3


def test_a_refused_question_is_answered_later(chats: Chats) -> None:
    with chats.at_terminal("busy") as terminal:
        terminal.expect(PROMPT)
        order(terminal, "one", "error: The scripted model was told to fail with status 429.")
        order(terminal, "/model echo", "echo answers")
        ask(terminal, "/retry")
        order(terminal, "/save later.json", "Saved")
    assert [message["content"] for message in chats.saved("later.json")] == ["one", "one"]


def test_an_answer_cut_by_the_limit_says_so(chats: Chats) -> None:
    with chats.at_terminal("--max-tokens", "1") as terminal:
        terminal.expect(PROMPT)
        assert "(cut: the limit on tokens" in ask(terminal, "one two")


def test_no_control_character_of_an_answer_reaches_the_terminal(chats: Chats) -> None:
    with chats.at_terminal("evil") as terminal:
        terminal.expect(PROMPT)
        shown = ask(terminal, "Hi")
        assert "a␛]0;title␇b\r\n\tc\ufffd31md␡␀\r\n" in shown
        terminal.type(CTRL_D)
        assert terminal.ended() == 0
    assert not {"\x07", "\x9b", "\x7f", "\x00"} & set(terminal.shown)
    assert "\x1b]" not in terminal.shown


def test_reasoning_is_dimmed_and_kept_out_of_the_conversation(chats: Chats) -> None:
    finish = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    thought = [delta(reasoning_content=piece) for piece in ("Let me \x1b[5m", "see.")]
    sent = stream(*thought, delta(content="Yes."), finish)
    models = reply({"data": [{"id": "m"}]})
    with (
        canned({"/v1/models": models, "/v1/chat/completions": sent}) as other,
        chats.elsewhere(f"{other.url}/v1") as terminal,
    ):
        terminal.expect(PROMPT)
        terminal.enter("Well?")
        terminal.expect("\x1b[2mLet me ␛[5m\x1b[0m\x1b[2msee.\x1b[0m\r\n\r\nYes.\r\n")
        terminal.expect(PROMPT)
        order(terminal, "/save why.json", "Saved")
    assert chats.saved("why.json")[1] == {"role": "assistant", "content": "Yes."}


def test_an_answer_that_breaks_costs_only_itself(chats: Chats) -> None:
    sent = stream(delta(content="half"), {"error": {"message": "Out of memory."}})
    models = reply({"data": [{"id": "m"}]})
    with (
        canned({"/v1/models": models, "/v1/chat/completions": sent}) as other,
        chats.elsewhere(f"{other.url}/v1") as terminal,
    ):
        terminal.expect(PROMPT)
        order(terminal, "Well?", "half\r\nerror: Out of memory. What came of the answer is kept. /retry asks")
        order(terminal, "/save half.json", "Saved")
        other.replies = {}
        order(terminal, "/retry", "error: No such path.")
        other.replies = {"/v1/chat/completions": stream(delta(content="whole"), "[DONE]")}
        order(terminal, "/retry", "whole\r\n")
        order(terminal, "/save whole.json", "Saved")
    assert [message["content"] for message in chats.saved("half.json")] == ["Well?", "half"]
    assert [message["content"] for message in chats.saved("whole.json")] == ["Well?", "whole"]


def test_what_was_typed_is_remembered_for_its_owner_alone(chats: Chats) -> None:
    history = chats.server.home / "chat_history"
    with chats.at_terminal() as terminal:
        terminal.expect(PROMPT)
        ask(terminal, "remember me")
        terminal.type(CTRL_D)
        assert terminal.ended() == 0
    assert history.stat().st_mode & 0o777 == 0o600
    with chats.at_terminal() as terminal:
        terminal.expect(PROMPT)
        terminal.type(UP)
        terminal.expect("remember")
        ask(terminal, " too")
        order(terminal, "/save again.json", "Saved")
    assert chats.saved("again.json")[0]["content"] == "remember me too"


def test_tab_completes_commands_models_and_files(chats: Chats) -> None:
    (chats.cwd / "only.json").write_text('{"model": "echo", "messages": []}')
    with chats.at_terminal() as terminal:
        terminal.expect(PROMPT)
        terminal.type(f"/mo{TAB} sl{TAB}")
        order(terminal, "", "slow answers from now on.")
        terminal.type(f"/lo{TAB} on{TAB}")
        order(terminal, "", "Loaded 0 messages from only.json.")


def test_a_home_that_can_not_be_written_costs_only_the_history(chats: Chats, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    chats.environ |= {"CHATPORT_HOME": str(tmp_path / "file" / "home"), "OPENAI_API_KEY": chats.server.key}
    with chats.elsewhere(f"{chats.server.url}/v1") as terminal:
        terminal.expect("What you type is not remembered:")
        terminal.expect(PROMPT)
        ask(terminal, "Hello")
