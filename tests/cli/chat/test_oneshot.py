"""A question from a pipe, and what ends the command before any answer."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.canned import canned, delta, reply, stream
from support.chats import Chats
from support.serving import Server, free_port
from support.terminal import CTRL_D, PATIENCE


def test_only_the_answer_is_printed(chats: Chats) -> None:
    assert chats.piped("one\n\n two\n") == (0, b"one\n\n two\n", "")
    assert {key["state"] for key in chats.minted()} == {"revoked"}


def test_the_model_inside_answers(model_server: Server, tmp_path: Path) -> None:
    ended = Chats(model_server, tmp_path).piped("What is the capital of France?", "--temperature", "0")
    assert (ended.code, ended.stdout) == (0, b"The capital of France is Paris.\n")


def test_what_is_no_terminal_gets_the_answer_exactly(chats: Chats) -> None:
    code, shown, _ = chats.piped("Hi", "evil")
    assert (code, shown.decode()) == (0, "a\x1b]0;title\x07b\r\n\tc\x9b31md\x7f\x00\n")


@pytest.mark.parametrize("how", [(), ("--no-stream",)])
def test_limits_reach_the_server(chats: Chats, how: tuple[str, ...]) -> None:
    code, shown, remark = chats.piped("one two three", "parrot", "--max-tokens", "2", "--temperature", "0", *how)
    assert (code, shown) == (0, b"one two\n")
    assert remark.startswith("note: the answer is cut: the limit on tokens")


@pytest.mark.parametrize(
    ("question", "arguments", "code", "sentence"),
    [
        (" \n", [], 2, "There was no message on stdin."),
        (b"a\xff", [], 2, "What came on stdin is not UTF-8, from byte 1 on."),
        ("Hi", ["nobody"], 1, "There is no model 'nobody' at"),
        ("Hi", ["mute"], 1, "The answer is empty."),
        ("Hi", ["busy"], 1, "The scripted model was told to fail with status 429."),
        ("Hi", ["--system", "a\udcff"], 2, "--system is not UTF-8."),
        ("Hi", ["--temperature", "3"], 2, "Invalid value"),
        ("Hi", ["--base-url", "http://127.0.0.1:1/v1"], 2, "--port is for the server on this machine."),
    ],
)
def test_what_can_not_be_done(
    chats: Chats, question: str | bytes, arguments: list[str], code: int, sentence: str
) -> None:
    ended = chats.piped(question, *arguments)
    assert (ended.code, ended.stdout) == (code, b"")
    assert sentence in ended.stderr
    assert {key["state"] for key in chats.minted()} <= {"revoked"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_an_answer(chats: Chats, number: signal.Signals) -> None:
    with chats.start("slow") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"Go")
        process.stdin.close()
        assert process.stdout.read(5) == b"tick "
        process.send_signal(number)
        assert process.wait(PATIENCE) == 130
    assert {key["state"] for key in chats.minted()} == {"revoked"}


def test_no_server_names_the_command_that_starts_one(chats: Chats) -> None:
    port = str(free_port())
    ended = chats.run("Hi", "--port", port)
    assert (ended.code, ended.stdout) == (7, b"")
    assert f"error: No answer from http://127.0.0.1:{port}: Connection refused." in ended.stderr
    assert f"CHATPORT_HOME={chats.server.home}" in ended.stderr
    assert f"chatport serve --port {port}\n" in ended.stderr


def test_somebody_else_at_the_port(chats: Chats) -> None:
    with canned({"/": reply({"name": "something else"})}) as other:
        ended = chats.run("Hi", "--port", other.url.rpartition(":")[2])
        assert [request.authorization for request in other.received] == [None]
    assert ended.code == 7
    assert f"What answers at {other.url} is not Chatport." in ended.stderr


def test_a_chatport_with_another_database(chats: Chats, tmp_path: Path) -> None:
    ended = chats.run("Hi", "--port", chats.server.url.rpartition(":")[2], CHATPORT_HOME=str(tmp_path))
    assert ended.code == 7
    assert f"does not work on the database of {tmp_path}" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_nobody_can_know(chats: Chats, tmp_path: Path) -> None:
    (tmp_path / "any.toml").write_text("[server]\nport = 0\n")
    ended = chats.run("Hi", "--config", str(tmp_path / "any.toml"))
    assert (ended.code, "Give the one it has with --port." in ended.stderr) == (2, True)


def test_another_server_with_the_environment_s_key(chats: Chats) -> None:
    before = chats.minted()
    url = f"{chats.server.url}/v1/"
    assert chats.run("Hi", "--base-url", url, OPENAI_API_KEY=chats.server.key).stdout == b"Hi\n"
    ended = chats.run("Hi", "--base-url", url, CHATPORT_API_KEY="sk-wrong-0123456789")
    assert ended.code == 7
    assert "does not take the key: Invalid API key provided: sk-wr…6789. It came from CHATPORT_API_KEY." in ended.stderr
    assert "None was given" in chats.run("Hi", "--base-url", url).stderr
    assert chats.minted() == before


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://host/v1", "http://", "http://h:99999/v1", "http://me:secret@h/v1", "http://h/\x1b"]
)
def test_what_is_no_base_url(chats: Chats, url: str) -> None:
    ended = chats.run("Hi", "--base-url", url)
    assert (ended.code, ended.stdout) == (2, b"")
    assert "--base-url" in ended.stderr
    assert "secret" not in ended.stderr
    assert "\x1b" not in ended.stderr


def test_a_broken_answer_keeps_what_came_and_its_error_can_not_steer_the_terminal(chats: Chats) -> None:
    sent = stream(delta(content="half"), {"error": {"message": "\x1b]0;title\x07 broke"}})
    models = reply({"data": [{"id": "m"}]})
    with canned({"/v1/models": models, "/v1/chat/completions": sent}) as other:
        ended = chats.run("Hi", "--base-url", f"{other.url}/v1")
    assert (ended.code, ended.stdout, ended.stderr) == (1, b"half\n", "error: ␛]0;title␇ broke\n")


def test_a_person_whose_answer_goes_elsewhere(chats: Chats, tmp_path: Path) -> None:
    with (tmp_path / "answer").open("wb") as file, chats.at_terminal(stdout=file) as terminal:
        terminal.expect("end it with Ctrl-D on a line of its own.")
        terminal.type(f"Hello\n{CTRL_D}")
        assert terminal.ended() == 0
    assert (tmp_path / "answer").read_text() == "Hello\n"


def test_a_terminal_gets_no_control_character_from_a_piped_question_either(chats: Chats) -> None:
    with chats.at_terminal("evil", stdin=b"Hi") as terminal:
        assert terminal.ended() == 0
    assert terminal.shown == "a␛]0;title␇b\r\n\tc\ufffd31md␡␀\r\n"
