"""The specification's own examples: word for word, and they run.

Each file under `tests/examples/` is one example with its indentation restored; nothing but the address differs from the
specification, and both the address and the key are put in when it runs. Until the embedded model can call tools and
write JSON, it refuses those two by name; the scripted model runs them to the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.javascript import NODE_MODULES, node
from support.serving import Server
from support.stream_rules import check_stream, joined, read_stream

EXAMPLES = Path(__file__).parent / "examples"
SPECIFICATION = EXAMPLES / "specification.txt"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "specification.txt"

THEIR_ADDRESS, OUR_ADDRESS = "https://api.ezmodel.cloud", "http://127.0.0.1:8000"
PLACEHOLDER = "YOUR_API_TOKEN"
FILES = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in {".sh", ".py", ".mjs"})


def without_space(text: str) -> str:
    return "".join(text.split())


def test_the_copy_is_the_specification() -> None:
    if not SHARED.exists() and "CI" not in os.environ:
        pytest.skip("the specification does not lie beside this checkout")
    assert SPECIFICATION.read_bytes() == SHARED.read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_an_example_is_the_specifications(name: str) -> None:
    example = (EXAMPLES / name).read_text(encoding="utf-8").replace(OUR_ADDRESS, THEIR_ADDRESS)
    assert without_space(example) in without_space(SPECIFICATION.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("suffix", "opening"),
    [(".sh", "curl -X POST"), (".py", "from openai import OpenAI"), (".mjs", "import OpenAI from 'openai'")],
)
def test_no_example_is_left_out(suffix: str, opening: str) -> None:
    there = SPECIFICATION.read_text(encoding="utf-8").count(opening)
    assert there == sum(name.endswith(suffix) for name in FILES) > 0


def run(name: str, server: Server, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs one example against the server, from a folder of its own, with nothing but address and key put in."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    script = folder / name
    script.write_text(text.replace(OUR_ADDRESS, server.url).replace(PLACEHOLDER, server.key), encoding="utf-8")
    command = {".sh": ["bash"], ".py": [sys.executable], ".mjs": [node()]}[script.suffix]
    if script.suffix == ".mjs":
        (folder / "node_modules").symlink_to(NODE_MODULES)
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment |= {"PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [*command, str(script)], env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def completion(output: str) -> dict[str, Any]:
    """The one completion that curl printed."""
    reply: dict[str, Any] = json.loads(output)
    assert reply["object"] == "chat.completion", reply
    assert reply["id"].startswith("chatcmpl-")
    usage = reply["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"] > 0
    return reply


def check_answer_or_call(choice: dict[str, Any]) -> None:
    """A model of this size may do either; a whole call fits the tool."""
    calls = choice["message"].get("tool_calls") or []
    assert choice["message"]["content"] or calls
    if choice["finish_reason"] == "tool_calls":
        for call in calls:
            assert call["function"]["name"] == "get_current_time"
            assert isinstance(json.loads(call["function"]["arguments"])["timezone"], str)


class TestOnTheModel:
    """The specification names `gpt-4`; a default installation answers to it, with a real model."""

    def test_basic_curl(self, model_server: Server, tmp_path: Path) -> None:
        reply = completion(run("basic.sh", model_server, tmp_path).stdout)
        assert reply["choices"][0]["message"]["content"].strip()
        assert reply["choices"][0]["finish_reason"] in {"stop", "length"}
        assert reply["usage"]["completion_tokens"] <= 150

    def test_streamed_curl(self, model_server: Server, tmp_path: Path) -> None:
        chunks = read_stream(run("stream.sh", model_server, tmp_path).stdout.encode())
        check_stream(chunks, garbled=True)
        assert joined(chunks)[0]["message"]["content"]

    @pytest.mark.parametrize("name", ["basic.py", "basic.mjs", "stream.py", "stream.mjs"])
    def test_sdk(self, model_server: Server, tmp_path: Path, name: str) -> None:
        done = run(name, model_server, tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()

    def test_tools_curl(self, model_server: Server, tmp_path: Path) -> None:
        check_answer_or_call(completion(run("tools.sh", model_server, tmp_path).stdout)["choices"][0])

    def test_tools_through_the_sdk(self, model_server: Server, tmp_path: Path) -> None:
        done = run("tools.py", model_server, tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("ChatCompletionMessage(")

    def test_json_curl(self, model_server: Server, tmp_path: Path) -> None:
        choice = completion(run("json.sh", model_server, tmp_path).stdout)["choices"][0]
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(choice["message"]["content"]), dict)
        else:
            assert choice["message"]["content"].startswith("{"), "cut by the limit, and JSON as far as it goes"


class TestOnTheScriptedModel:
    """The same files to their end, the tool and JSON examples too."""

    @pytest.mark.parametrize("name", ["basic.sh", "tools.sh"])
    def test_curl(self, scripted_server: Server, tmp_path: Path, name: str) -> None:
        choice = completion(run(name, scripted_server, tmp_path).stdout)["choices"][0]
        assert choice["message"]["content"] or choice["message"]["tool_calls"]

    def test_json_curl(self, scripted_server: Server, tmp_path: Path) -> None:
        content = completion(run("json.sh", scripted_server, tmp_path).stdout)["choices"][0]["message"]["content"]
        assert isinstance(json.loads(content), dict)

    def test_streamed_curl(self, scripted_server: Server, tmp_path: Path) -> None:
        chunks = read_stream(run("stream.sh", scripted_server, tmp_path).stdout.encode())
        check_stream(chunks)
        assert joined(chunks)[0]["message"]["content"] == "写一首关于春天的诗"

    @pytest.mark.parametrize(
        ("name", "printed"),
        [
            ("basic.py", "Hello, how are you?"),
            ("basic.mjs", "Hello, how are you?"),
            ("stream.py", "写一首关于春天的诗"),
            ("stream.mjs", "写一首关于春天的诗"),
            ("tools.py", "ChatCompletionMessage("),
        ],
    )
    def test_sdk(self, scripted_server: Server, tmp_path: Path, name: str, printed: str) -> None:
        done = run(name, scripted_server, tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(printed)
