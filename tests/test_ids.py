"""Names of our own: never the same twice, not after a fork either."""

from __future__ import annotations

import os
import re
import sys

import pytest

from chatport.ids import fresh


def test_names_differ_and_have_one_form() -> None:
    names = [fresh("req_") for _ in range(10_000)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", name) for name in names)


def test_a_later_name_sorts_behind_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of time, an index grows at its end; 584 years fit."""
    years = [0, 1, 1_000_000_000, 1_764_000_000, 18_000_000_000]
    names = []
    for seconds in years:
        monkeypatch.setattr("chatport.ids.time.time_ns", lambda seconds=seconds: seconds * 10**9)
        names.append(fresh("req_"))
    assert names == sorted(names)
    assert {len(name) for name in names} == {len("req_") + 24}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_fork_makes_names_of_its_own() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, fresh("").encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100).decode() not in {fresh("") for _ in range(10)}
