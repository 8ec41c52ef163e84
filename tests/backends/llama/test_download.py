"""One file over HTTP, from a server on loopback that breaks off, sends on, or has another file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chatport.backends.llama import download
from chatport.backends.llama.catalogue import WeightsError
from chatport.backends.llama.download import Remote, fetch
from support.downloads import FileHandler, Line, Seen, listening

DATA = random.Random(5).randbytes(300_000)


class Server(FileHandler):
    """`/file` is the file, `/on/ADDRESS` sends on to it, a number is the status of a refusal."""

    line: Line

    def do_GET(self) -> None:
        if self.path == "/file":
            self.answer_file(DATA, self.line)
        elif self.path.startswith("/on/"):
            self.line.headers.append(dict(self.headers.items()))
            self.answer(302, b"", {"Location": self.path.removeprefix("/on/")})
        else:
            self.answer(int(self.path[1:]), b"")


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return Line()


@pytest.fixture
def server(line: Line) -> Iterator[str]:
    with listening(Server, line=line) as url:
        yield url


def test_an_interrupted_download_goes_on_where_it_was(server: str, line: Line, tmp_path: Path) -> None:
    line.cuts = [100_000, 50_000]
    part, seen = tmp_path / "part", Seen()
    fetch(Remote(f"{server}/file"), part, len(DATA), seen)
    assert part.read_bytes() == DATA
    assert line.asked == ["", "bytes=100000-", "bytes=150000-"]
    assert seen.done == sorted(seen.done)


def test_a_download_that_broke_off_goes_on_in_the_next_run(server: str, line: Line, tmp_path: Path) -> None:
    part = tmp_path / "part"
    line.cuts = [100_000, 0, 0, 0]
    with pytest.raises(download.BrokenOff, match=r"broke off; 0 of 0 MB are here\. Run the command again"):
        fetch(Remote(f"{server}/file"), part, len(DATA), Seen())
    assert part.read_bytes() == DATA[:100_000]
    line.asked.clear()
    fetch(Remote(f"{server}/file"), part, len(DATA), Seen())
    assert part.read_bytes() == DATA
    assert line.asked == ["bytes=100000-"]


def test_without_ranges_it_starts_over(server: str, line: Line, tmp_path: Path) -> None:
    line.ranges, line.cuts = False, [100_000]
    part = tmp_path / "part"
    fetch(Remote(f"{server}/file"), part, len(DATA), Seen())
    assert part.read_bytes() == DATA


def test_a_line_that_brings_nothing(server: str, line: Line, tmp_path: Path) -> None:
    line.cuts = [0] * download.FRUITLESS_TRIES
    with pytest.raises(download.Silent):
        fetch(Remote(f"{server}/file"), tmp_path / "part", len(DATA), Seen())
    assert len(line.asked) == download.FRUITLESS_TRIES


def test_a_line_that_falls_silent_is_given_up(
    server: str, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "READ_TIMEOUT", 0.1)
    line.block, line.pause = 100_000, 5.0
    with pytest.raises(download.Silent):
        fetch(Remote(f"{server}/file"), tmp_path / "part", len(DATA), Seen())


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_a_file_of_another_size_is_not_fetched(server: str, size: int, tmp_path: Path) -> None:
    with pytest.raises(download.WrongSize):
        fetch(Remote(f"{server}/file"), tmp_path / "part", size, Seen())
    assert not (tmp_path / "part").exists()


def test_a_refusal_has_its_status(server: str, tmp_path: Path) -> None:
    with pytest.raises(download.Unreadable) as error:
        fetch(Remote(f"{server}/403"), tmp_path / "part", len(DATA), Seen())
    assert error.value.status == 403


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(download.Unreadable):
        fetch(Remote("no address"), tmp_path / "part", len(DATA), Seen())


def test_secrets_stay_with_the_server_they_are_for(server: str, line: Line, tmp_path: Path) -> None:
    secrets = {"Authorization": "Bearer s3cret", "Cookie": "m_session_id=s3cret"}
    with ExitStack() as stack:
        elsewhere = Line()
        other = stack.enter_context(listening(Server, line=elsewhere))
        fetch(Remote(f"{server}/on//on/{other}/file", secrets), tmp_path / "part", len(DATA), Seen())
    assert (tmp_path / "part").read_bytes() == DATA
    assert [headers.get("Authorization") for headers in line.headers] == ["Bearer s3cret"] * 2
    assert [headers.get("Cookie") for headers in line.headers] == ["m_session_id=s3cret"] * 2
    assert [headers for headers in elsewhere.headers if "s3cret" in str(headers)] == []
    assert len(elsewhere.headers) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_disk_that_fills_up_is_told(server: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"Can't write /dev/full: No space left on device"):
        fetch(Remote(f"{server}/file"), Path("/dev/full"), len(DATA), Seen())
