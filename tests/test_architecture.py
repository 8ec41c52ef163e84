"""The folder listing is the architecture: what `docs/architecture.md` says of the rooms is read off the source here."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "chatport"
MODULES = sorted(SOURCE.rglob("*.py"))

RANK = {
    "wire": 1,
    "ids": 0,
    "providers": 0,
    "targets": 0,
    "store": 1,
    "counters": 1,
    "telemetry": 1,
    "config": 1,
    "policy": 2,
    "backends": 2,
    "attempts": 3,
    "delivery": 3,
    "envelopes": 3,
    "pipeline": 3,
    "web": 4,
    "opening": 5,
    "upstreams": 5,
    "settings": 5,
    "reloading": 5,
    "runtime": 5,
    "cli": 6,
    "__main__": 7,
}
"""A module imports only from rooms of lower rank, or from its own. `chatport` itself (its version) is open to all."""

NEIGHBOURS = {
    ("pipeline", "delivery"),
    ("pipeline", "attempts"),
    ("pipeline", "envelopes"),
    ("envelopes", "attempts"),
    ("envelopes", "delivery"),
    ("runtime", "opening"),
    ("opening", "upstreams"),
    ("runtime", "settings"),
    ("runtime", "reloading"),
}
"""Of one rank, and yet one may know the other: the pipeline's last stage lives in a file of its own, so does the
making of models from their settings, and of upstreams."""

LINES = 600
MACHINE_PATH = re.compile(r"(?<![\w.$}~-])/(?:work|home|root|Users)/[\w.-]+")
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".mjs", ".sh", ".yml", ".cfg", ""}


def name_of(path: Path) -> str:
    """`wire/chat.py` → `chatport.wire.chat`."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str | None:
    """The room a module lives in; None for the package itself."""
    return module.split(".")[1] if "." in module else None


def imports(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports, at its top or inside a function; `from chatport import x` names x."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "chatport")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room they look into"
            if node.module == "chatport":
                yield from (f"chatport.{alias.name}" for alias in node.names if not alias.name.startswith("_"))
            elif node.module is not None and node.module.startswith("chatport."):
                yield node.module


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    here = room(name_of(path))
    for target in imports(path):
        there = room(target)
        if here is None or there is None or here == there or (here, there) in NEIGHBOURS:
            continue
        assert RANK[there] < RANK[here], f"{name_of(path)} must not know {target}"


def test_every_room_has_a_rank() -> None:
    rooms = {room(name_of(path)) for path in MODULES} - {None}
    assert rooms <= set(RANK), f"no rank for {rooms - set(RANK)}"


def test_the_package_itself_imports_nothing_of_ours() -> None:
    assert list(imports(SOURCE / "__init__.py")) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES


@pytest.mark.parametrize("path", [p for p in MODULES if room(name_of(p)) != "cli"], ids=name_of)
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def committed_files() -> list[Path]:
    """What git holds, or would hold: everything that is not ignored."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, text=True, check=True, timeout=30).stdout.split("\0")
    return [ROOT / name for name in names if name and Path(name).suffix in TEXT and (ROOT / name).is_file()]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {match}"
        for path in committed_files()
        for match in MACHINE_PATH.findall(path.read_text(encoding="utf-8", errors="replace"))
    }
    assert not found
