"""The bridge to the engine: nothing reachable, nothing left behind, a sentence for what is broken."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from chatport.backends.llama import LlamaBackend, LlamaSettings, ModelFileError, listener
from chatport.backends.llama.engine import _has_gpu
from chatport.wire.errors import InternalError, Unavailable
from support.embedded import END_OF_TURN, TARGET, answer, ask, busy_slots, opened, text
from support.gguf_files import gguf


async def test_nothing_listens_but_a_socket_of_this_user(backend: LlamaBackend) -> None:
    assert [link for link in psutil.Process().net_connections("inet") if link.status == psutil.CONN_LISTEN] == []
    folder = backend._engine.listener.folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(os.fsencode(backend._engine.listener.hostname)) < 100


async def test_the_engines_listener_wants_its_key(backend: LlamaBackend) -> None:
    engines = backend._engine.listener
    key, engines.key = engines.key, "wrong"
    try:
        with pytest.raises(InternalError):
            await engines.tokens("x", special=False)
    finally:
        engines.key = key


def test_layers_are_fitted_where_there_is_a_gpu() -> None:
    module = pytest.importorskip("xllamacpp")
    kinds = module.ggml_backend_dev_type

    def engine_with(*devices: str) -> ModuleType:
        found = [{"type": kinds[f"GGML_BACKEND_DEVICE_TYPE_{device}"]} for device in devices]
        built = ModuleType("engine")
        built.__dict__["get_device_info"] = lambda: found
        return built

    assert [_has_gpu(engine_with(*devices)) for devices in (("CPU",), ("ACCEL", "CPU"))] == [False, False]
    assert [_has_gpu(engine_with(device, "CPU")) for device in ("GPU", "IGPU")] == [True, True]


class BrokenEngine:
    """Says these things, and then raises or not."""

    def __init__(self, *says: dict[str, Any], raises: Exception | None = None) -> None:
        self.says = says
        self.raises = raises

    def handle_completions(self, body: dict[str, Any], observe: Callable[[dict[str, Any]], bool]) -> None:
        for progress in self.says:
            if observe(progress):
                return
        if self.raises:
            raise self.raises


async def test_no_thread_to_be_had_is_said_and_leaves_the_slot_free(
    small: LlamaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    request = ask()
    bound = await small.bound(TARGET, request)
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", start)
        with pytest.raises(Unavailable, match="threads"):
            await small.complete(TARGET, request, bound)
    assert small.in_flight == 0
    assert await text(small, request)


PIECE = {"choices": [{"text": "Hel", "finish_reason": None}]}


@pytest.mark.parametrize(
    "engine",
    [
        BrokenEngine(PIECE),
        BrokenEngine(PIECE, raises=RuntimeError("the engine's own words")),
        BrokenEngine(raises=ValueError("bad grammar")),
        BrokenEngine(PIECE, {"error": {"code": 500, "message": "the engine's own words", "type": "server_error"}}),
        BrokenEngine({"something": "new"}),
    ],
)
async def test_an_engine_that_breaks_is_our_fault(
    small: LlamaBackend, monkeypatch: pytest.MonkeyPatch, engine: BrokenEngine
) -> None:
    request = ask(temperature=1)
    bound = await small.bound(TARGET, request)
    with monkeypatch.context() as broken:
        broken.setattr(small._engine, "_server", engine)
        with pytest.raises(InternalError) as failure:
            await small.complete(TARGET, request, bound)
    assert "own words" not in failure.value.message
    assert small.in_flight == 0
    assert await text(small, ask()) == "The capital of France is Paris."


def test_without_unix_sockets_it_listens_on_loopback_behind_a_key(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "UNIX_SOCKETS", False)
    backend = opened(smollm2_path, context=256, slots=1)
    try:
        reply = asyncio.run(answer(backend, ask()))
        asyncio.run(answer(backend, ask(temperature=1, max_tokens=1)))
        assert asyncio.run(text(backend, ask())) == reply.choices[0].message.content, "slots can be emptied there, too"
        listening = [at for at in psutil.Process().net_connections("inet") if at.status == psutil.CONN_LISTEN]
        assert [at.laddr.ip for at in listening] == ["127.0.0.1"]
    finally:
        asyncio.run(backend.close())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda raw: raw[: len(raw) // 2], "is cut short"),
        (lambda raw: raw[:-100], "The engine can't load"),
        (lambda raw: raw.replace(b"llama", b"lxama"), "is no language model|The engine can't load"),
        (lambda _: gguf(), "The engine can't load"),
        (lambda _: b"", "is empty"),
    ],
)
def test_a_file_that_cannot_be_loaded_gets_a_sentence(
    smollm2_path: Path, tmp_path: Path, change: Any, sentence: str
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(change(smollm2_path.read_bytes()))
    with pytest.raises(ModelFileError, match=sentence):
        opened(broken)


def test_a_closed_model_refuses_and_leaves_nothing(smollm2_path: Path) -> None:
    backend = opened(smollm2_path, context=256, slots=1)
    folder = backend._engine.listener.folder
    asyncio.run(backend.close())
    assert not folder.exists()
    with pytest.raises(Unavailable):
        asyncio.run(backend.bound(TARGET, ask()))


async def test_closing_ends_what_is_running(smollm2_path: Path) -> None:
    backend = await LlamaBackend.open(LlamaSettings(path=smollm2_path, context=2048, threads=2))
    request = ask("Tell me a story.", max_tokens=2000, logit_bias={END_OF_TURN: -100, "1": -100, "0": -100})
    bound = await backend.bound(TARGET, request)
    running = [asyncio.create_task(backend.complete(TARGET, request, bound)) for _ in range(2)]
    while not await busy_slots(backend):
        await asyncio.sleep(0.01)
    await backend.close()
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        assert isinstance(outcome, Unavailable)


@pytest.mark.parametrize("how", ["return", "raise SystemExit(3)", "raise KeyboardInterrupt"])
def test_a_process_may_end_at_any_moment(smollm2_path: Path, how: str) -> None:
    """Without `close`, while an answer is generated and another waits: no abort, no waiting for long answers."""
    program = f"""
import asyncio, sys
from pathlib import Path
import msgspec
from chatport.backends.llama import LlamaBackend, LlamaSettings
from chatport.targets import Target
from chatport.wire.chat import ChatRequest

async def main():
    backend = await LlamaBackend.open(LlamaSettings(path=Path(sys.argv[1]), context=4096, slots=1, threads=2))
    target = Target(id="t", backend="b", model="m")
    request = msgspec.convert({{"model": "m", "messages": [{{"role": "user", "content": "Tell me a story."}}],
                               "max_tokens": 3500, "logit_bias": {{"2": -100, "1": -100, "0": -100}}}}, ChatRequest)
    bound = await backend.bound(target, request)
    loop = asyncio.get_running_loop()
    async def run():
        async with backend.stream(target, request, bound) as chunks:
            async for _ in chunks:
                started.set()
    started = asyncio.Event()
    tasks = [asyncio.create_task(run()) for _ in range(2)]
    await started.wait()
    keep.append((backend, tasks))
    print(backend._engine.listener.folder)
    loop.stop()

keep = []
loop = asyncio.new_event_loop()
task = loop.create_task(main())
loop.run_forever()
def end():
    {how}
end()
"""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(smollm2_path)], capture_output=True, timeout=60, check=False
    )
    expected = {"return": 0, "raise SystemExit(3)": 3, "raise KeyboardInterrupt": -2}[how]
    assert ended.returncode == expected, ended.stderr.decode()
    assert b"FATAL" not in ended.stderr
    assert not Path(ended.stdout.decode().strip()).exists()


def test_the_memory_it_takes(smollm2_path: Path) -> None:
    """At most 400 MB in a process of its own: four slots, the model's whole window."""
    program = """
import asyncio, sys, psutil
from pathlib import Path
from chatport.backends.llama import LlamaBackend, LlamaSettings
backend = asyncio.run(LlamaBackend.open(LlamaSettings(path=Path(sys.argv[1]))))
print(psutil.Process().memory_info().rss)
asyncio.run(backend.close())
"""
    told = subprocess.run(
        [sys.executable, "-c", program, str(smollm2_path)], capture_output=True, timeout=60, check=True
    )
    assert int(told.stdout) < 400 * 1024 * 1024


def test_without_the_engine_there_is_a_sentence(smollm2_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(Exception, match=r"pip install 'chatport\[embedded\]'"):
        opened(smollm2_path)


def test_the_room_is_imported_without_the_engine() -> None:
    program = "import sys, chatport.backends.llama, chatport.backends.llama.weights; print('xllamacpp' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
    assert told.stdout.strip() == b"False"
