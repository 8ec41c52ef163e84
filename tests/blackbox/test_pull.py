"""`chatport models pull` as a person runs it: killed, interrupted, sent from one hub to the other, told why not."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.asking import Api
from support.gguf_files import gguf
from support.hub import Hub, hub_listening
from support.serving import environment_for, serving

REPOSITORY, PATH = "Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf"
"""Where the catalogue's qwen3-0.6b lies."""
CONTENT = gguf() + random.Random(9).randbytes(20_000_000)
TOKEN = "hf_s3cret-t0ken"


class Machine(NamedTuple):
    """A home, and two hubs within reach."""

    home: Path
    huggingface: Hub
    modelscope: Hub

    @property
    def environ(self) -> dict[str, str]:
        hubs = {"HF_ENDPOINT": self.huggingface.url, "MODELSCOPE_ENDPOINT": self.modelscope.url}
        return environment_for(self.home) | hubs

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "chatport", "models", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=self.environ, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def run(self, *arguments: str, code: int = 0, **environ: str) -> tuple[str, str]:
        """Its stdout and stderr, once it ended with this exit code."""
        command = [sys.executable, "-m", "chatport", "models", *arguments]
        done = subprocess.run(
            command, env=self.environ | environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert "127.0.0.1" not in done.stdout + done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout, done.stderr

    def part(self) -> Path:
        """The file that is being fetched, once there is some of it."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for part in self.home.glob("models/**/*.part"):
                if part.stat().st_size > 1_000_000:
                    return part
            time.sleep(0.01)
        raise AssertionError("nothing came")

    def slow_down(self) -> None:
        """4 s for the whole file."""
        self.huggingface.line.block, self.huggingface.line.pause = 1 << 20, 0.2

    def speed_up(self) -> None:
        self.huggingface.line.pause = 0.0


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with hub_listening() as one, hub_listening() as two:
        for hub in (one, two):
            hub.repositories[REPOSITORY] = {PATH: CONTENT}
        yield Machine(tmp_path, one, two)


def test_a_killed_pull_goes_on_where_it_was(machine: Machine) -> None:
    machine.slow_down()
    with machine.start("pull", "qwen3-0.6b") as pulling:
        part = machine.part()
        pulling.send_signal(signal.SIGKILL)
    have = part.stat().st_size
    assert 0 < have < len(CONTENT)
    entries = {entry["name"]: entry for entry in json.loads(machine.run("list", "--json")[0])}
    assert (entries["qwen3-0.6b"]["path"], entries["qwen3-0.6b"]["size"]) == (None, 0)
    machine.speed_up()
    out, said = machine.run("pull", "qwen3-0.6b")
    file = machine.home / "models" / "qwen3-0.6b.gguf"
    assert out == f"{file}\n"
    assert file.read_bytes() == CONTENT
    assert machine.huggingface.line.asked == ["", f"bytes={have}-"]
    assert f"{REPOSITORY}/{PATH}, from {have / 1e6:.0f} MB on" in said
    assert "100 %  20 of 20 MB" in said
    assert sorted(found.name for found in file.parent.iterdir()) == ["qwen3-0.6b.gguf", "qwen3-0.6b.lock"]


def test_ctrl_c_keeps_what_came(machine: Machine) -> None:
    machine.slow_down()
    with machine.start("pull", f"{REPOSITORY}/{PATH}") as pulling:
        part = machine.part()
        pulling.send_signal(signal.SIGINT)
        assert pulling.wait(10) == 130
    assert part.stat().st_size > 0
    machine.run("rm", f"{REPOSITORY}/{PATH}")
    assert not part.exists()


def test_two_at_once_fetch_once(machine: Machine) -> None:
    machine.slow_down()
    both = [machine.start("pull", "qwen3-0.6b") for _ in range(2)]
    machine.part()
    machine.run("rm", "qwen3-0.6b", code=5)
    said = [pulling.communicate(timeout=60)[1] for pulling in both]
    assert [pulling.returncode for pulling in both] == [0, 0]
    assert sorted("is here already" in text for text in said) == [False, True]
    assert machine.huggingface.line.asked == [""]


def test_modelscope_goes_on_where_hugging_face_went_away(machine: Machine) -> None:
    machine.huggingface.line.cuts = [5_000_000, 0, 0, 0]
    _, said = machine.run("pull", "qwen3-0.6b")
    assert (
        "The mirror in HF_ENDPOINT broke off at 5 of 20 MB. Taking the mirror in MODELSCOPE_ENDPOINT instead." in said
    )
    assert machine.modelscope.line.asked == ["bytes=5000000-"]
    assert (machine.home / "models" / "qwen3-0.6b.gguf").read_bytes() == CONTENT


def test_a_silent_hub_costs_little(machine: Machine) -> None:
    machine.huggingface.silent = True
    begun = time.monotonic()
    machine.run("pull", "qwen3-0.6b")
    assert time.monotonic() - begun < 5.0
    assert machine.modelscope.line.asked == [""]


def test_no_hub_within_reach(machine: Machine) -> None:
    machine.huggingface.silent = True
    begun = time.monotonic()
    _, said = machine.run("pull", "qwen3-0.6b", "--source", "huggingface", code=5)
    assert time.monotonic() - begun < 10.0
    assert said.startswith("error: qwen3-0.6b could not be fetched. The mirror in HF_ENDPOINT ")


def test_a_gated_repository_opens_with_a_token_that_nobody_else_sees(machine: Machine) -> None:
    machine.huggingface.token = TOKEN
    name = f"{REPOSITORY}/{PATH}"
    _, said = machine.run("pull", name, "--source", "huggingface", code=5)
    assert "A private or gated one needs an access token of yours in HF_TOKEN." in said
    machine.run("pull", name, "--source", "huggingface", HF_TOKEN=TOKEN)
    assert TOKEN not in str(machine.huggingface.line.headers)
    (listed,) = [entry for entry in json.loads(machine.run("list", "--json")[0]) if entry["path"]]
    assert listed["name"] == "Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0"
    assert (listed["size"], listed["licence"], listed["sources"]) == (len(CONTENT), None, [])


def test_a_wrong_sha256_leaves_nothing(machine: Machine) -> None:
    machine.huggingface.told = machine.modelscope.told = {"sha256": "0" * 64}
    _, said = machine.run("pull", "qwen3-0.6b", code=5)
    assert said.count("its sha256 differs. It was deleted.") == 3
    assert [file.name for file in (machine.home / "models").iterdir()] == ["qwen3-0.6b.lock"]


def test_a_disk_that_refuses_in_the_middle(machine: Machine) -> None:
    """The system's limit on the size of a file stands for a disk that is full."""
    command = [sys.executable, "-m", "chatport", "models", "pull", "qwen3-0.6b"]
    limit = 10_000_000
    done = subprocess.run(
        command,
        env=machine.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 5
    assert "error: Can't write " in done.stderr
    assert machine.modelscope.line.asked == []
    machine.run("pull", "qwen3-0.6b")
    assert machine.huggingface.line.asked[-1].startswith("bytes=")


@pytest.mark.parametrize("name", ["../../x.gguf", "a/../b/x.gguf", f"{REPOSITORY}/../../../x.gguf"])
def test_a_name_can_not_lead_out_of_the_folder(name: str, machine: Machine) -> None:
    _, said = machine.run("pull", name, code=5)
    assert "is not a model that can be pulled" in said
    assert not list(machine.home.rglob("*.lock"))
    assert machine.huggingface.door.headers == []


def test_a_hubs_file_is_fetched_and_served_under_its_name(tmp_path: Path, smollm2_path: Path) -> None:
    """From a hub to an answer, with one command and real weights."""
    name = "own/SmolLM2-GGUF/SmolLM2-Q4_1"
    with hub_listening() as hub:
        hub.repositories["own/SmolLM2-GGUF"] = {"SmolLM2-Q4_1.gguf": smollm2_path.read_bytes()}
        environ = {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": hub.url}
        with serving(tmp_path, None, "--model", f"{name}.gguf", environ=environ) as server:
            api = Api(server)
            assert api.completion(model=name, max_tokens=4, temperature=0)["model"] == name
            api.close()
