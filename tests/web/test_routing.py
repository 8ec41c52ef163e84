"""Patterns against segments."""

from __future__ import annotations

import pytest

from chatport.web.routing import match


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("/a", "/a", ()),
        ("/a", "/b", None),
        ("/a", "/a/b", None),
        ("/a/{x}", "/a/1", ("1",)),
        ("/a/{x}", "/a/", None),
        ("/a/{x}", "/a/1/2", None),
        ("/a/{x}/b", "/a/1/b", ("1",)),
        ("/a/{x}/b", "/a//b", None),
        ("/a/{x...}", "/a/1/2", ("1/2",)),
        ("/a/{x...}", "/a/1/", ("1/",)),
        ("/a/{x...}", "/a/", None),
        ("/a/{x...}", "/a", None),
    ],
)
def test_match(pattern: str, path: str, found: tuple[str, ...] | None) -> None:
    assert match(tuple(pattern.split("/")), path.split("/")) == found
