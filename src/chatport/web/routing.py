"""From a raw path to its route.

Segments are split before they are percent-decoded, so that `%2F` in a model's name stays inside it. Nothing else is
normalised: `//v1/models`, a trailing slash and `..` are other paths, and not found.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

from chatport.web.site import Route
from chatport.wire.errors import NotFound, quote

API_BASE = "/v1"


class Routes:
    """The table of routes; those without open places are found by one look-up."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._patterns = [(tuple(route.path.split("/")), route) for route in routes]
        self._plain = {route.path.encode(): route for _, route in self._patterns if "{" not in route.path}

    def find(self, raw_path: bytes) -> tuple[Route, tuple[str, ...]] | None:
        """The route, and what its open places matched; None when there is no such path."""
        if (plain := self._plain.get(raw_path)) is not None:
            return plain, ()
        segments = [unquote(segment) for segment in raw_path.decode("latin-1").split("/")]
        for pattern, route in self._patterns:
            if (parameters := match(pattern, segments)) is not None:
                return route, parameters
        return None

    def missing(self, method: str, raw_path: bytes) -> NotFound:
        """The error for a path that is not there, with a hint where the base URL looks wrong."""
        path = raw_path.decode("latin-1")
        meant = [path.rstrip("/"), API_BASE + path, path.removeprefix(API_BASE)]
        hint = next((f" Did you mean {known}?" for known in meant if self.find(known.encode("latin-1"))), "")
        return NotFound(f"No such path: {quote(f'{method} {path}')}.{hint} The API's base URL ends in {API_BASE}.")


def match(pattern: tuple[str, ...], segments: list[str]) -> tuple[str, ...] | None:
    """What the pattern's open places hold, none of it empty; None when it does not fit."""
    if pattern[-1].endswith("...}") and len(segments) >= len(pattern):
        last = len(pattern) - 1
        segments = [*segments[:last], "/".join(segments[last:])]
    if len(segments) != len(pattern):
        return None
    parameters = []
    for place, segment in zip(pattern, segments, strict=True):
        if place.startswith("{"):
            if not segment:
                return None
            parameters.append(segment)
        elif place != segment:
            return None
    return tuple(parameters)
