"""Log lines: plain and JSON, a request's id in all of them, and nothing forged by a client."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from chatport.telemetry import HOLD_SECONDS, REQUEST_ID, Access, configure_logging, log_access, new_request_id

LOG = logging.getLogger("chatport.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the lines go, and nowhere else; logging is as it was afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("chatport")
    before = root.handlers[:], root.level, ours.level
    root.handlers.clear()
    yield io.StringIO()
    root.handlers[:], root.level, ours.level = before


def access(**fields: Any) -> Access:
    given = {"method": "POST", "path": "/v1/x", "request_id": "req_1"} | fields
    return Access(status=200, ms=1.26, **given)


def test_a_plain_line_for_each_request(stream: io.StringIO) -> None:
    configure_logging("info", stream=stream)
    log_access(access(key_id="key_1", model="echo"))
    log_access(access(client="203.0.113.7"))
    first, second = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    assert first == "INFO POST /v1/x 200 1.3ms req_1 - key_1 echo"
    assert second == "INFO POST /v1/x 200 1.3ms req_1 203.0.113.7 - -"


def test_a_plain_line_names_the_upstream(stream: io.StringIO) -> None:
    configure_logging("info", stream=stream)
    log_access(access(model="m", target="openai-2", attempts=3))
    assert stream.getvalue().endswith(" m openai-2 3\n")


def test_a_json_line_for_each_request(stream: io.StringIO) -> None:
    configure_logging("info", json_lines=True, stream=stream)
    log_access(access())
    line = msgspec.json.decode(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info", "logger": "chatport.access", "method": "POST", "path": "/v1/x", "status": 200, "ms": 1.3,
        "request_id": "req_1", "client": None, "key_id": None, "model": None, "target": None, "attempts": 0,
    }  # fmt: skip


@pytest.mark.parametrize("json_lines", [False, True])
@pytest.mark.parametrize("chosen", ["a\nINFO forged", 'a" b', "\x1b[2J", "\u2028", "春" * 500])
def test_clients_forge_no_lines(stream: io.StringIO, chosen: str, json_lines: bool) -> None:
    configure_logging("info", json_lines=json_lines, stream=stream)
    log_access(access(model=chosen, path=chosen))
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    if not json_lines:
        assert len(stream.getvalue().split(" ")) == 10


@pytest.mark.parametrize("json_lines", [False, True])
def test_a_request_is_named_in_every_line(stream: io.StringIO, json_lines: bool) -> None:
    configure_logging("info", json_lines=json_lines, stream=stream)
    token = REQUEST_ID.set("req_7")
    LOG.warning("odd: %d", 5)
    REQUEST_ID.reset(token)
    LOG.warning("even")
    first, second = stream.getvalue().splitlines()
    assert "odd: 5" in first
    assert "req_7" in first
    assert "req_7" not in second


@pytest.mark.parametrize("json_lines", [False, True])
def test_a_traceback_comes_along(stream: io.StringIO, json_lines: bool) -> None:
    configure_logging("info", json_lines=json_lines, stream=stream)
    LOG.error("broken", exc_info=ValueError("why"))
    assert "ValueError: why" in stream.getvalue()
    assert json_lines == (len(stream.getvalue().splitlines()) == 1)


def test_levels(stream: io.StringIO) -> None:
    configure_logging("debug", stream=io.StringIO())
    configure_logging("warning", stream=stream)
    LOG.info("not said")
    logging.getLogger("elsewhere").info("not said")
    LOG.warning("said once")
    logging.getLogger("elsewhere").warning("said too")
    assert [line.split(" ", 2)[2] for line in stream.getvalue().splitlines()] == ["said once", "said too"]


def test_request_ids_differ() -> None:
    assert new_request_id().startswith("req_")
    assert new_request_id() != new_request_id()


class Beside(logging.Handler):
    """What somebody else has installed."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[object] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.msg)


@pytest.mark.parametrize("logger", ["", "chatport", "chatport.access"])
def test_who_listens_beside_us_hears_of_requests_too(stream: io.StringIO, logger: str) -> None:
    configure_logging("info", stream=stream)
    beside = Beside()
    logging.getLogger(logger).addHandler(beside)
    log_access(access(model="echo"))
    logging.getLogger(logger).removeHandler(beside)
    assert beside.heard == [access(model="echo")]
    assert stream.getvalue().endswith(" echo\n")


def test_a_filter_is_asked(stream: io.StringIO) -> None:
    configure_logging("info", stream=stream)
    requests = logging.getLogger("chatport.access")
    requests.addFilter(silence := lambda record: False)
    log_access(access())
    requests.removeFilter(silence)
    assert stream.getvalue() == ""


async def test_a_line_that_can_not_be_made_takes_no_other_with_it(stream: io.StringIO) -> None:
    configure_logging("info", json_lines=True, stream=stream)
    for model in ("one", "half \ud800", "three"):
        log_access(access(model=model))
    await asyncio.sleep(HOLD_SECONDS * 2)
    lines = [msgspec.json.decode(line) for line in stream.getvalue().splitlines()]
    assert [(line["model"], line["request_id"]) for line in lines] == [
        ("one", "req_1"), (None, "req_1"), ("three", "req_1"),
    ]  # fmt: skip


@pytest.mark.parametrize("alone", [True, False])
def test_the_lines_of_requests_can_be_silenced(stream: io.StringIO, alone: bool) -> None:
    configure_logging("info", stream=stream)
    if not alone:
        logging.getLogger().addHandler(Beside())
    logging.getLogger("chatport.access").setLevel(logging.WARNING)
    log_access(access())
    logging.getLogger("chatport.access").setLevel(logging.NOTSET)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("alone", [True, False])
async def test_requests_of_a_moment_are_written_together_and_in_order(stream: io.StringIO, alone: bool) -> None:
    if not alone:
        logging.getLogger().addHandler(Beside())
    configure_logging("info", stream=stream)
    for name in "ab":
        log_access(access(model=name))
    assert stream.getvalue() == ""
    LOG.warning("something else")
    log_access(access(model="c"))
    assert [line.rsplit(" ", 1)[1] for line in stream.getvalue().splitlines()] == ["a", "b", "else"]
    await asyncio.sleep(2 * HOLD_SECONDS)
    assert stream.getvalue().endswith(" c\n")
    log_access(access(model="d"))
    logging.getLogger().handlers[-1].flush()
    assert stream.getvalue().endswith(" d\n")


async def test_a_line_of_another_thread_comes_behind_the_requests_before_it(stream: io.StringIO) -> None:
    configure_logging("info", stream=stream)
    log_access(access(model="a"))
    await asyncio.to_thread(LOG.warning, "something else")
    log_access(access(model="b"))
    await asyncio.sleep(2 * HOLD_SECONDS)
    assert [line.rsplit(" ", 1)[1] for line in stream.getvalue().splitlines()] == ["a", "else", "b"]


async def test_a_log_that_is_closed_ends_no_request(stream: io.StringIO) -> None:
    configure_logging("info", stream=stream)
    log_access(access())
    stream.close()
    logging.getLogger().handlers[-1].flush()
    log_access(access())
    await asyncio.sleep(2 * HOLD_SECONDS)
