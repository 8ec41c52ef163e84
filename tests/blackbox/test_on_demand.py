"""Models that nobody configured: the real weights under other names, in processes that come and go."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest

from blackbox.conftest import sdk_for
from support.asking import CREATE, Api, request_body
from support.gguf_files import gguf
from support.serving import Server, serving
from support.stream_rules import check_same_answer, check_stream, read_stream

PATIENCE = 20.0
"""Seconds for what takes a second or two on an idle machine."""

LONGEST_GAP = 2.0
"""Seconds between two pieces of a stream beside a model that is loaded: 0.04 on an idle machine."""

QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12, "messages": QUESTION}
SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Paris", "Zürich"]}}, "required": ["city"]}
LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Tell me a very long story."}],
    "max_tokens": 900,
    "logit_bias": {"0": -100, "1": -100, "2": -100},  # the tokens that would end it
}

BESIDE_ANOTHER = """
[on_demand]
max_loaded = 1
context = 1024
slots = 1

[[models]]
id = "inside"
backend = "llama"
path = "{path}"
context = 1024
slots = 1
"""

ALONE = """
[on_demand]
idle_seconds = {idle}
context = 512
slots = 2

[[models]]
id = "echo"
backend = "scripted"
"""


def put(weights: Path, home: Path, name: str) -> Path:
    """The weights under another name, without a second copy where the disk allows that."""
    file = home / "models" / f"{name}.gguf"
    file.parent.mkdir(exist_ok=True)
    try:
        file.hardlink_to(weights)
    except OSError:
        file.symlink_to(weights)
    return file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path) -> Iterator[Server]:
    """`inside` in the process, `toy` on demand; there is a place for one at a time."""
    home = tmp_path_factory.mktemp("on_demand")
    put(smollm2_path, home, "toy")
    with serving(home, BESIDE_ANOTHER.format(path=smollm2_path)) as server:
        yield server
    assert children(server) == []


@pytest.fixture
def beside(server: Server) -> Iterator[Api]:
    api = Api(server)
    yield api
    api.close()


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with sdk_for(server) as client:
        yield client


def children(server: Server) -> list[psutil.Process]:
    """The processes of models; those that remain when the program has ended belong to nobody."""
    found = [
        process
        for process in psutil.process_iter(["cmdline", "environ", "status"])
        if "chatport.backends.on_demand.worker" in (process.info["cmdline"] or ())
        and (process.info["environ"] or {}).get("CHATPORT_HOME") == str(server.home)
    ]
    return [process for process in found if process.info["status"] != psutil.STATUS_ZOMBIE]


def streaming(model: str, **fields: Any) -> dict[str, Any]:
    return request_body({**LONG, **fields, "model": model, "stream": True})


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


def states(server: Server) -> dict[str, str]:
    readiness = httpx2.get(f"{server.url}/readyz", trust_env=False)
    assert readiness.status_code == 200, "readiness does not depend on models that are loaded on demand"
    told: dict[str, str] = readiness.json()["on_demand"]
    return told


def unload(api: Api, server: Server) -> None:
    """Makes sure that `toy` is not there, by its process's end."""
    for child in children(server):
        child.kill()
    until(lambda: "loaded" not in states(server).values(), "the model is gone")


def loads(server: Server, name: str = "toy") -> int:
    return server.log.read_text().count(f"the model {name} is being loaded")


# --- Listed, loaded, the same ----------------------------------------------------------------------------------------


def test_it_is_listed_and_described_without_being_loaded(server: Server, client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {"inside", "toy"}
    assert listed["toy"].created == int((server.home / "models" / "toy.gguf").stat().st_mtime)
    described, inside = (client.models.retrieve(name).to_dict() for name in ("toy", "inside"))
    for key in ("context_length", "capabilities"):
        assert described[key] == inside[key]
    assert loads(server) == 0
    assert states(server) == {"toy": "not loaded"}


def test_first_requests_load_it_once_while_others_are_answered(server: Server, beside: Api) -> None:
    """The constructor of the engine holds its interpreter: in this process, a stream, and whoever asks for its state,
    would hear nothing as long as that takes."""
    unload(beside, server)
    before, arrived, enough = loads(server), [time.monotonic()], threading.Event()

    def stream() -> None:
        with beside.http.stream("POST", CREATE, json=streaming("inside")) as reply:
            for _ in reply.iter_bytes():
                arrived.append(time.monotonic())
                if enough.is_set():
                    return

    with ThreadPoolExecutor(3) as pool:
        beside_it = pool.submit(stream)
        until(lambda: len(arrived) > 5, "the stream runs")
        asking = [pool.submit(beside.completion, **GREEDY, model="toy") for _ in range(2)]
        until(lambda: states(server)["toy"] == "loading", "it is being loaded")
        began = len(arrived)
        until(lambda: states(server)["toy"] == "loaded", "it is loaded")
        meanwhile = arrived[began:]
        replies = [each.result() for each in asking]
        enough.set()
        beside_it.result()
    assert replies[0]["choices"] == replies[1]["choices"]
    assert loads(server) - before == 1
    assert len(children(server)) == 1
    assert len(meanwhile) > 3, "the stream went on"
    gaps = [later - earlier for earlier, later in pairwise(meanwhile)]
    assert max(gaps) < LONGEST_GAP


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"logprobs": True, "top_logprobs": 2},
        {"n": 2},
        {"stop": "Paris"},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}},
    ],
)
def test_it_answers_as_the_same_model_in_the_process(beside: Api, fields: dict[str, Any]) -> None:
    there, here = (beside.completion(**GREEDY | fields, model=name) for name in ("toy", "inside"))
    assert there["choices"] == here["choices"]
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [there["usage"][key] for key in counts] == [here["usage"][key] for key in counts]
    streamed = beside.stream(**GREEDY | fields, model="toy")
    check_same_answer(streamed.frames, there)


def test_it_calls_tools_as_the_same_model_in_the_process(beside: Api) -> None:
    """A caller's schema is text that travels as it came."""
    tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    fields = GREEDY | {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 60}
    calls = []
    for name in ("toy", "inside"):
        (choice,) = beside.completion(**fields, model=name)["choices"]
        (call,) = choice["message"]["tool_calls"]
        calls.append(call["function"])
        assert json.loads(call["function"]["arguments"])["city"] in ("Paris", "Zürich")
    assert calls[0] == calls[1]


def test_errors_are_those_of_the_model_in_the_process(beside: Api) -> None:
    for fields in (
        {"messages": [{"role": "user", "content": "word " * 2000}]},
        {"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}]},
    ):
        assert beside.post({**fields, "model": "toy"}).json() == beside.post({**fields, "model": "inside"}).json()


def test_a_key_may_be_made_for_it(server: Server) -> None:
    for models, status in (("toy", 200), ("inside", 403)):
        api = Api(server, server.new_key("--models", models).key)
        assert api.post({**GREEDY, "model": "toy"}).status_code == status
        api.close()


# --- Leaving, ending, breaking ---------------------------------------------------------------------------------------


def test_leaving_a_stream_frees_its_slot(beside: Api) -> None:
    """There is one slot: who comes next would wait for all of the answer that was left."""
    beside.completion(**GREEDY, model="toy")
    with beside.http.stream("POST", CREATE, json=streaming("toy")) as reply:
        next(reply.iter_bytes())
    began = time.monotonic()
    beside.completion(**GREEDY, model="toy")
    assert time.monotonic() - began < 3


def test_a_process_that_is_killed_ends_its_answers_and_comes_again(server: Server, beside: Api) -> None:
    beside.completion(**GREEDY, model="toy")
    with beside.http.stream("POST", CREATE, json=streaming("toy")) as reply:
        pieces = reply.iter_bytes()
        received = next(pieces)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(beside.refusal, **LONG, model="toy")  # there is one slot, and it is taken
            time.sleep(0.2)
            (child,) = children(server)
            folder = Path(child.environ()["XDG_RUNTIME_DIR"])
            assert list(folder.iterdir()), "the engine has its socket there"
            child.kill()
            received += b"".join(pieces)
            told = waiting.result()
    last = json.loads(received.removesuffix(b"\n\n").rpartition(b"data: ")[2])
    assert (last["error"]["type"], told.status) == ("service_unavailable", 503)
    assert "SIGKILL" in last["error"]["message"] == told.message
    assert "the process of the model toy has ended: SIGKILL" in server.log.read_text()
    assert beside.text(**GREEDY, model="toy")
    assert children(server) != [child]
    assert not folder.exists()


def test_signals_to_its_group_do_not_end_it(server: Server, beside: Api) -> None:
    beside.completion(**GREEDY, model="toy")
    (child,) = children(server)
    assert os.getpgid(child.pid) != os.getpgid(server.process.pid)
    assert child.net_connections("inet") == [], "nothing of it can be reached"
    for number in (signal.SIGTERM, signal.SIGINT):
        child.send_signal(number)
    beside.completion(**GREEDY, model="toy")
    assert children(server) == [child]


def test_files_come_and_go_while_it_runs(server: Server, beside: Api, smollm2_path: Path) -> None:
    """The one that comes takes the place of the one that is there: there is only one."""
    assert beside.refusal(**GREEDY, model="second").code == "model_not_found"
    beside.completion(**GREEDY, model="toy")
    (first,) = children(server)
    file = put(smollm2_path, server.home, "second")
    try:
        beside.completion(**GREEDY, model="second")
        assert states(server) == {"second": "loaded", "toy": "not loaded"}
        assert [child.pid for child in children(server)] != [first.pid]
        assert len(children(server)) == 1
    finally:
        file.unlink()
    assert "second" not in [model["id"] for model in beside.http.get("/v1/models").json()["data"]]
    assert beside.refusal(**GREEDY, model="second").code == "model_not_found"
    until(lambda: children(server) == [], "a model whose file is gone is unloaded")


def test_a_request_waits_for_the_place_of_a_running_one(server: Server, beside: Api, smollm2_path: Path) -> None:
    file = put(smollm2_path, server.home, "third")
    try:
        with ThreadPoolExecutor(1) as pool:
            story = {**LONG, "model": "toy", "max_tokens": 60}
            running = pool.submit(beside.stream, **story)
            until(lambda: states(server)["toy"] == "loaded", "the other one is there")
            beside.completion(**GREEDY, model="third")
            assert running.result().choices[0]["finish_reason"] == "length", "nobody is unloaded in mid-sentence"
    finally:
        file.unlink()


def test_a_broken_file_is_told_in_a_sentence(server: Server, beside: Api) -> None:
    file = server.home / "models" / "broken.gguf"
    file.write_bytes((server.home / "models" / "toy.gguf").read_bytes()[:50_000])
    try:
        told = beside.refusal(**GREEDY, model="broken")
        assert told.status == 503
        assert told.message == "The file of the model broken can't be read as a model; the server's log says why."
        assert states(server)["broken"] == told.message
    finally:
        file.unlink()
    assert f"the model broken can't be served: {file} is cut short: it has 50000 bytes" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


# --- Alone -----------------------------------------------------------------------------------------------------------


def test_idle_it_is_unloaded(tmp_path: Path, smollm2_path: Path) -> None:
    put(smollm2_path, tmp_path, "toy")
    with serving(tmp_path, ALONE.format(idle=0.5)) as server:
        api = Api(server)
        api.completion(**GREEDY, model="toy")
        assert len(children(server)) == 1
        until(lambda: states(server) == {"toy": "not loaded"} and children(server) == [], "it is unloaded")
        assert "the model toy is unloaded: unused for 0.5 s" in server.log.read_text()
        api.completion(**GREEDY, model="toy")
        api.close()


def test_a_stop_lets_its_answers_finish_and_leaves_no_process(tmp_path: Path, smollm2_path: Path) -> None:
    put(smollm2_path, tmp_path, "toy")
    with serving(tmp_path, ALONE.format(idle=600)) as server:
        api = Api(server)
        with api.http.stream("POST", CREATE, json=streaming("toy", max_tokens=60)) as reply:
            pieces = reply.iter_bytes()
            received = next(pieces)
            server.process.send_signal(signal.SIGTERM)
            received += b"".join(pieces)
        check_stream(read_stream(received))
        api.close()
        assert server.process.wait(20) == 0
        assert children(server) == []


def kill_with_a_model(home: Path) -> None:
    with serving(home, ALONE.format(idle=600)) as server:
        api = Api(server)
        api.completion(**GREEDY, model="toy")
        api.close()
        assert len(children(server)) == 1
        server.process.kill()
        server.process.wait()
        until(lambda: children(server) == [], "the model's process has ended", 1)


def test_it_does_not_outlive_a_program_that_is_killed(tmp_path: Path, smollm2_path: Path) -> None:
    put(smollm2_path, tmp_path, "toy")
    with pytest.raises(AssertionError, match="the server ended with -9"):
        kill_with_a_model(tmp_path)


# --- Without weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ("raise ImportError", "The engine for embedded models is not installed: pip install 'chatport[embedded]'"),
        ("import os; os.abort()", "The process of the model empty has ended (SIGABRT)."),
        ("while True: pass", "The model empty could not be loaded within 1 s."),
        ("raise ZeroDivisionError", "The server had an error while processing your request."),
    ],
)
def test_what_can_go_wrong_while_it_is_loaded(tmp_path: Path, engine: str, sentence: str) -> None:
    """An engine that does what the test says, in the place of the real one."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "empty.gguf").write_bytes(gguf())
    (tmp_path / "xllamacpp.py").write_text(engine)
    config = ALONE.format(idle=600).replace("slots = 2", "load_seconds = 1")
    with serving(tmp_path, config, environ={"PYTHONPATH": str(tmp_path)}) as server:
        api = Api(server)
        told = api.refusal(**GREEDY, model="empty")
        assert (told.status, told.message) == (503, sentence)
        assert children(server) == []
        assert states(server) == {"empty": "not loaded"}
        assert f"the model empty can't be loaded: {sentence}" in server.log.read_text()
        assert api.text(model="echo")
        api.close()


def test_odd_files_in_the_folder_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "empty.gguf").write_bytes(gguf())
    (folder / "dangling.gguf").symlink_to("/nonexistent/x.gguf")
    os.mkfifo(folder / "pipe.gguf")
    for name in (b'a"b\n\x1b[31m.gguf', b"caf\xe9.gguf", b" .gguf", b".gguf"):
        with suppress(OSError):  # where the file system takes no such name either
            (folder / os.fsdecode(name)).write_bytes(gguf())
    with serving(tmp_path, ALONE.format(idle=600)) as server:
        api = Api(server)
        assert [model["id"] for model in api.http.get("/v1/models").json()["data"]] == ["echo", "empty"]
        assert states(server) == {"empty": "not loaded"}
        api.close()


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "empty.gguf").write_bytes(gguf())
    with serving(tmp_path, ALONE.format(idle=600).replace("slots = 2", "enabled = false")) as server:
        api = Api(server)
        assert [model["id"] for model in api.http.get("/v1/models").json()["data"]] == ["echo"]
        assert api.refusal(**GREEDY, model="empty").code == "model_not_found"
        assert states(server) == {}
        api.close()


def test_a_stream_shows_signs_of_life_while_its_model_is_loaded(tmp_path: Path) -> None:
    """The head goes out after `stream_commit_after`; what then goes wrong travels in the stream."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "empty.gguf").write_bytes(gguf())
    (tmp_path / "xllamacpp.py").write_text("while True: pass")
    config = "[server]\nstream_commit_after = 0.1\n" + ALONE.format(idle=600).replace("slots = 2", "load_seconds = 1")
    with serving(tmp_path, config, environ={"PYTHONPATH": str(tmp_path)}) as server:
        api = Api(server)
        reply = api.post({**GREEDY, "model": "empty", "stream": True})
        assert reply.status_code == 200
        assert reply.content.startswith(b":")
        assert b"could not be loaded within 1 s" in reply.content
        assert b"[DONE]" not in reply.content
        api.close()
