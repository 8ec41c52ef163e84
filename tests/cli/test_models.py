"""`chatport models`, and how a download is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chatport.backends.llama import weights
from chatport.backends.llama.catalogue import KNOWN, Source, WeightsError
from chatport.backends.llama.download import Progress
from chatport.cli.app import app
from chatport.cli.progress import Bar, Lines, shown_progress

runner = CliRunner()
NAMES = ", ".join(KNOWN)
NAMED = "of a hub is named owner/repo/file.gguf"
OTHERS = "owner/repo/file.gguf of a hub"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CHATPORT_HOME/models, empty."""
    monkeypatch.setenv("CHATPORT_HOME", str(tmp_path))
    monkeypatch.setattr("chatport.backends.llama.installed.packaged_file", lambda model: None)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_list_shows_what_is_here_and_what_can_be_pulled(folder: Path) -> None:
    (folder / "mine.gguf").write_bytes(b"GGUF")
    shown = runner.invoke(app, ["models", "list"]).stdout
    assert str(folder / "mine.gguf") in shown
    assert "not here: chatport models pull smollm2-135m" in shown
    assert "not here: chatport models pull qwen3-4b" in shown
    assert "Apache-2.0. Hugging Face only." in shown


def test_list_as_json(folder: Path) -> None:
    (folder / "mine.gguf").write_bytes(b"GGUF")
    mine, known, *others = json.loads(runner.invoke(app, ["models", "list", "--json"]).stdout)
    nothing: dict[str, object] = {"licence": None, "summary": None, "sources": []}
    assert mine == {"name": "mine", "path": str(folder / "mine.gguf"), "size": 4} | nothing
    assert (known["name"], known["path"], known["size"]) == ("smollm2-135m", None, 98_362_432)
    assert known["sources"] == ["index"]
    assert {(other["path"], other["size"]) for other in others} == {(None, 0)}
    sources = {other["name"]: other["sources"] for other in others}
    assert sources["qwen3-0.6b"] == ["huggingface", "modelscope"]
    assert sources["smollm3-3b"] == ["huggingface"]


def test_list_shows_files_of_hubs_by_their_name(folder: Path) -> None:
    file = folder / "own" / "repo" / "x-Q8_0.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"GGUF")
    assert f"own/repo/x-Q8_0                0 MB  {file}" in runner.invoke(app, ["models", "list"]).stdout
    assert runner.invoke(app, ["models", "rm", "own/repo/x-Q8_0"]).exit_code == 0
    assert not file.exists()


def test_pull_prints_the_file_alone_on_stdout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(name: str, home: Path, progress: Progress, source: Source | None) -> Path:
        progress.say(f"Fetching {name}")
        for done in range(0, 1001, 25):
            progress.moved(done * 1_000_000, 1_000_000_000)
        return home / "models" / f"{name}.gguf"

    monkeypatch.setattr(weights, "pull", pull)
    result = runner.invoke(app, ["models", "pull", "smollm2-135m"])
    assert result.stdout == f"{folder / 'smollm2-135m.gguf'}\n"
    lines = result.stderr.splitlines()
    assert lines[0] == "Fetching smollm2-135m"
    assert lines[1] == "  0 %  0 of 1000 MB"
    assert lines[-1] == "100 %  1000 of 1000 MB"
    assert len(lines) == 12


def test_ctrl_c_while_pulling(monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(name: str, home: Path, progress: Progress, source: Source | None) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "pull", pull)
    assert runner.invoke(app, ["models", "pull", "smollm2-135m"]).exit_code == 130


def test_rm_frees_room(folder: Path) -> None:
    (folder / "mine.gguf").write_bytes(b"x" * 2_000_000)
    assert runner.invoke(app, ["models", "rm", "mine"]).stdout == "Removed mine: 2 MB are free again.\n"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("option", ["huggingface", "modelscope"])
def test_the_source_may_be_chosen(option: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(name: str, home: Path, progress: Progress, source: Source | None) -> Path:
        assert source is Source(option)
        return home

    monkeypatch.setattr(weights, "pull", pull)
    assert runner.invoke(app, ["models", "pull", "qwen3-4b", "--source", option]).exit_code == 0


def test_the_package_index_is_no_source_to_choose() -> None:
    assert runner.invoke(app, ["models", "pull", "smollm2-135m", "--source", "index"]).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["pull", "gpt-4"],
            f'"gpt-4" is not a model that can be pulled. Known: {NAMES}; any other file {NAMED}.',
        ),
        (
            ["rm", "gpt-4"],
            f'There is no model "gpt-4" to remove. Models here: none. To be pulled: {NAMES}, and {OTHERS}.',
        ),
    ],
)
def test_an_unknown_model_ends_with_a_sentence_and_a_code(arguments: list[str], sentence: str) -> None:
    result = runner.invoke(app, ["models", *arguments])
    assert (result.exit_code, result.stderr) == (5, f"error: {sentence}\n")


def test_a_failed_pull_ends_with_its_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(name: str, home: Path, progress: Progress, source: Source | None) -> Path:
        raise WeightsError("The download broke off; 40 of 93 MB are here.")

    monkeypatch.setattr(weights, "pull", pull)
    result = runner.invoke(app, ["models", "pull", "smollm2-135m"])
    assert (result.exit_code, result.stderr) == (5, "error: The download broke off; 40 of 93 MB are here.\n")


def test_a_bar_on_a_terminal_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with shown_progress() as progress:
        assert isinstance(progress, Lines)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with shown_progress() as progress:
        assert isinstance(progress, Bar)
        progress.say("a [bold] sentence")
        progress.moved(50_000_000, 100_000_000)
    shown = capsys.readouterr().err
    assert "a [bold] sentence" in shown
    assert "50.0/100.0 MB" in shown
