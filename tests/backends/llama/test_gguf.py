"""What a model's file says, and what is said of a broken one."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatport.backends.llama.catalogue import WeightsError
from chatport.backends.llama.gguf import ModelFile, ModelFileError, Strings, read
from support.gguf_files import HEAD, gguf, string


def written(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(raw)
    return path


def without(key: str) -> dict[str, object]:
    return {name: entry for name, entry in HEAD.items() if name != key}


def test_what_it_says(tmp_path: Path) -> None:
    model = read(written(tmp_path, gguf()))
    assert (model.architecture, model.context_length, model.tokenizer) == ("llama", 64, "gpt2")
    assert model.tokens[2:4] == [b"<|im_end|>", b"a"]
    assert model.token_types == [2, 3, 3, 1, 1, 1, 1]
    assert (model.bos_id, model.eos_id) == (1, 2)


@given(st.lists(st.binary(max_size=4)), st.slices(8))
def test_strings_are_the_list_they_were_made_of(strings: list[bytes], part: slice) -> None:
    made = Strings(strings)
    assert (list(made), len(made), made[part]) == (strings, len(strings), strings[part])
    assert [made[at] for at in range(-len(strings), len(strings))] == strings * 2
    for beyond in (len(strings), -len(strings) - 1):
        with pytest.raises(IndexError):
            made[beyond]


def test_what_it_need_not_say(tmp_path: Path) -> None:
    model = read(written(tmp_path, gguf(without("tokenizer.chat_template") | {"more": [[1.5], [2.5]], "yes": True})))
    assert model.chat_template is None


def test_the_digest_is_the_contents_not_the_paths(tmp_path: Path) -> None:
    first = read(written(tmp_path, gguf(weights=64))).digest
    other = tmp_path / "other.gguf"
    other.write_bytes(gguf(weights=64))
    assert read(other).digest == first
    other.write_bytes(gguf(weights=63) + b"x")
    assert read(other).digest != first


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 a zip file", "is not a GGUF file"),
        (b"GGUF", "is cut short"),
        (gguf()[:-10], "is cut short"),
        (gguf(tensors=4, weights=90), "is cut short"),
        (gguf(version=1), "version is 1"),
        (gguf({}), "is no language model"),
        (gguf(without("llama.context_length")), "is no language model"),
        (gguf({"x": struct.pack("<I", 99)}), "unknown type 99"),
        (gguf({"x": struct.pack("<IIQ", 9, 8, 2**60)}), "promises 1152921504606846976 entries"),
        (gguf({"x": struct.pack("<IQ", 8, 2**62)}), "is cut short"),
        (gguf({"x": struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9}), "nested too deep"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + string("t") + struct.pack("<I", 1000), "has 1000 dimensions"),
    ],
)
def test_a_broken_file_gets_a_sentence(tmp_path: Path, raw: bytes, sentence: str) -> None:
    path = written(tmp_path, raw)
    with pytest.raises(ModelFileError, match=sentence) as failure:
        read(path)
    assert str(path) in str(failure.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("missing", "There is no model file"), (".", "is no regular file"), ("model/below", "can't be read")],
)
def test_what_is_no_file(tmp_path: Path, name: str, sentence: str) -> None:
    written(tmp_path, gguf()).rename(tmp_path / "model")
    with pytest.raises(ModelFileError, match=sentence):
        read(tmp_path / name)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.timeout(10)
def test_a_pipe_is_refused_before_somebody_would_have_to_write(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match=r"pipe\.gguf is no regular file"):
        read(tmp_path / "pipe.gguf")


def test_the_command_line_tells_it_as_it_tells_missing_weights() -> None:
    assert issubclass(ModelFileError, WeightsError)


@given(st.binary(max_size=64), st.integers(0, 400))
def test_garbage_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int) -> None:
    raw = gguf()
    path = tmp_path_factory.getbasetemp() / "garbage.gguf"
    path.write_bytes(raw[:at] + junk + raw[at + len(junk) :])
    with contextlib.suppress(ModelFileError):
        assert isinstance(read(path), ModelFile)


def test_the_default_model(smollm2_path: Path) -> None:
    model = read(smollm2_path)
    assert (model.architecture, model.context_length, len(model.tokens)) == ("llama", 8192, 49152)
    assert (model.bos_id, model.eos_id) == (1, 2)


def test_what_is_kept_of_the_default_model(smollm2_path: Path) -> None:
    """Kept: under 1.5 MB, and under 3 while it is read. An object for each token, or a copy of the head, is more."""
    tracemalloc.start()
    try:
        model = read(smollm2_path)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(model.tokens) == 49152
    assert kept < 1_500_000
    assert peak < 3_000_000
