"""The bridge to xllamacpp: the one file that knows it.

A call to the engine blocks its thread, and the engine calls back on that thread for each token; so every choice of an
answer has a thread of its own while it runs, and hands what it gets to the event loop. Rules of the bridge:

* What a callback raises would only end the stream silently: it is kept and raised after the call.
* A callback's True cancels the task in the engine. It is asked at each token, and while a prompt is read at each
  batch, because `return_progress` is always set.
* A process that ends while a thread generates is aborted by the C++ runtime (engine.md, pitfall 3). The threads are
  daemons, so that the interpreter does not wait for long answers; `close`, and at the latest an exit handler, tells
  them to end and joins them.
* The engine's constructor holds the GIL: nothing else runs while a model is loaded.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

from msgspec import Struct

from chatport.backends.llama.catalogue import WeightsError
from chatport.backends.llama.gguf import ModelFile, ModelFileError
from chatport.backends.llama.listener import Listener
from chatport.wire.errors import ApiError, ContextExceeded, InternalError, Unavailable

Body = dict[str, Any]
"""A request to the engine, as its token endpoint takes it."""
Progress = dict[str, Any]
"""What the engine says while it works: a token's text, or how much of the prompt is read, or how it ended."""

BATCH: Final = 64
"""Tokens of a prompt that are evaluated at once. A cancelled request stops at the next batch, and running answers wait
for one between two of their tokens; larger ones gain less than 10 % here (512 tokens: 302/s with 64, 310 with 256)."""
LISTENER_THREADS: Final = 4
HALT_SECONDS: Final = 10.0
"""For a call of the engine to end once it is told to; a batch takes one at the most."""
RETRY_AFTER: Final = 1.0
"""Seconds that a client is asked to wait when the system gives no thread."""
SPIN: Final = "1000"
"""How often the engine's threads look whether the others have come before they sleep; they meet hundreds of times for
each token. The default, 300,000, means milliseconds of spinning each time that another process has one of the cores:
measured beside one, 0.4 tokens/s against 26 with this, and 100 against 107 on an idle machine."""


log = logging.getLogger("chatport")


class EngineMissing(WeightsError):
    """xllamacpp is not installed."""


class EngineSettings(Struct, frozen=True, kw_only=True):
    slots: int
    context: int
    """Tokens, shared by the slots."""
    threads: int | None
    gpu_layers: int | Literal["auto"]


class Engine:
    """One loaded model. `complete` blocks; `start` runs something that does, on a thread of its own."""

    def __init__(self, model: ModelFile, settings: EngineSettings) -> None:
        """Loads the model; seconds, with the GIL held. Raises ModelFileError and EngineMissing."""
        module = _xllamacpp()
        self.version: str = module.__version__
        self.slots = settings.slots
        self.context = settings.context
        self.listener = Listener()
        try:
            self._server: Any = module.Server(_parameters(module, model.path, settings, self.listener))
        except RuntimeError as exc:
            self.listener.close()
            raise ModelFileError(
                f"The engine can't load {model.path} (architecture {model.architecture}, {settings.context} tokens of "
                "context): the file is damaged, its architecture is unknown to this engine, or memory is short."
            ) from exc
        self.listener.opened(self._server.listening_address)
        self._halted = threading.Event()
        self._threads: set[threading.Thread] = set()
        atexit.register(self._leave_nothing)

    def complete(self, body: Body, observe: Callable[[Progress], bool]) -> None:
        """Runs one request to its end, or until `observe` returns True. Raises ApiError, and what `observe` raises."""
        failure: BaseException | None = None

        def on_progress(progress: Progress) -> bool:
            nonlocal failure
            try:
                if "error" in progress:
                    failure = _translated(progress["error"])
                return failure is not None or self._halted.is_set() or observe(progress)
            except BaseException as exc:  # noqa: BLE001  raised below, where somebody can hear it
                failure = exc
                return True

        try:
            self._server.handle_completions(body, on_progress)
        except (ValueError, RuntimeError) as exc:
            raise InternalError from exc
        if failure is not None:
            raise failure
        if self._halted.is_set():
            raise Unavailable("The model is shutting down.")

    def erase(self) -> None:
        """Empties every slot, so that nothing of earlier requests is in the cache. Nothing may be running."""
        self.listener.erase(range(self.slots))

    def start(self, work: Callable[[], None]) -> None:
        """Runs `work` on a thread. It must come to an end soon after the engine is told to halt."""
        if self._halted.is_set():
            raise Unavailable("The model is shut down.")
        thread = threading.Thread(target=self._run, args=(work,), name="chatport-llama", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as exc:
            self._threads.discard(thread)
            raise Unavailable("The server has no threads left to answer with.", retry_after=RETRY_AFTER) from exc

    async def close(self) -> None:
        """Ends what is running and unloads the model. Idempotent."""
        await asyncio.to_thread(self._leave_nothing)
        atexit.unregister(self._leave_nothing)
        if self._threads:
            log.error("the engine has not come back within %s s; it is left behind", HALT_SECONDS)
            self._abandoned = self._server  # freeing it would wait for it
        self._server = None

    @property
    def closed(self) -> bool:
        return self._halted.is_set()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            self._threads.discard(threading.current_thread())

    def _leave_nothing(self) -> None:
        """No thread in the engine, no folder on the disk; an engine that does not come back is left behind."""
        self._halted.set()
        for thread in tuple(self._threads):
            thread.join(HALT_SECONDS)
        self.listener.close()


def _translated(error: dict[str, Any]) -> ApiError:
    """What the engine refuses should have been refused before; so this is our fault unless it says otherwise."""
    if error.get("type") == "exceed_context_size_error":
        return ContextExceeded(error["n_ctx"], error["n_prompt_tokens"])
    return InternalError()


def _xllamacpp() -> ModuleType:
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)  # read once, when the engine's OpenMP is loaded
    try:
        import xllamacpp  # noqa: PLC0415  an extra: the program runs without it
    except ImportError as exc:
        raise EngineMissing(
            "The engine for embedded models is not installed: pip install 'chatport[embedded]'"
        ) from exc
    module: ModuleType = xllamacpp
    return module


def _parameters(module: ModuleType, path: Path, settings: EngineSettings, listener: Listener) -> Any:
    parameters = module.CommonParams()
    parameters.model.path = str(path)
    parameters.n_parallel = settings.slots
    parameters.n_ctx = settings.context
    parameters.kv_unified = True  # the slots share the window, and one request may use it all
    parameters.n_batch = parameters.n_ubatch = BATCH
    threads = settings.threads or _cores()
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.n_gpu_layers = -1 if settings.gpu_layers == "auto" else settings.gpu_layers
    parameters.cache_ram_mib = 0  # what is cached is in the slots; copies beside them cost up to 8 GiB
    parameters.n_ctx_checkpoints = 0  # would cut prompts elsewhere than at whole batches
    parameters.verbosity = 0
    parameters.ui = False
    # Layers are fitted to the GPU's memory where there is one; without, fitting only costs time.
    parameters.fit_params = settings.gpu_layers == "auto" and _has_gpu(module)
    parameters.n_threads_http = LISTENER_THREADS
    parameters.hostnames = [listener.hostname]
    parameters.api_keys = [listener.key]
    parameters.slot_save_path = f"{listener.folder}{os.sep}"  # without one, slots can't be emptied
    return parameters


def _has_gpu(module: ModuleType) -> bool:
    """Whether this build of the engine computes on something with a memory of its own, or shared like Apple's."""
    return any(device["type"].name.endswith(("_TYPE_GPU", "_TYPE_IGPU")) for device in module.get_device_info())


def _cores() -> int:
    """Physical cores this process may use; -1, the engine's own guess, where that can't be told."""
    if sys.platform != "linux":
        return -1
    allowed = os.sched_getaffinity(0)
    siblings = {_siblings(cpu) for cpu in allowed}
    return len(allowed) if None in siblings else len(siblings)


def _siblings(cpu: int) -> str | None:
    """Names the core that a logical CPU belongs to."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return None
