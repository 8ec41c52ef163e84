"""llama-server itself as an upstream: the HTTP server of llama.cpp, which the embedded engine has inside of it.

    python -m support.llama_server MODEL.gguf PORT

serves on loopback, with a key, until its standard input ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from support.serving import free_port

KEY = "sk-llama-server"
READY_WITHIN = 60.0

TEMPLATE = Path(sys.prefix, "templates", "trl/chat_templates/qwen2_5.jinja")
"""Which `make test` puts beside the environment."""


def serve(path: str, port: int) -> None:
    import xllamacpp  # noqa: PLC0415  only the child needs it

    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_parallel, parameters.n_ctx = path, 2, 4096
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 2
    parameters.verbosity, parameters.fit_params, parameters.ui, parameters.use_jinja = 0, False, False, True
    # The default model's own template knows no tools; with this one the server holds the model to Hermes' calls.
    parameters.chat_template = TEMPLATE.read_text("utf-8")
    parameters.hostnames, parameters.port, parameters.api_keys = ["127.0.0.1"], port, [KEY]
    server = xllamacpp.Server(parameters)
    sys.stdin.read()
    assert server is not None
    os._exit(0)


@contextmanager
def llama_server(path: Path) -> Iterator[str]:
    """Its address, up to `/v1`."""
    port = free_port()
    command = [sys.executable, "-m", "support.llama_server", str(path), str(port)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environ)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + READY_WITHIN
        while not _answers(url):
            assert process.poll() is None, "llama-server has ended"
            assert time.monotonic() < deadline, "llama-server does not answer"
            time.sleep(0.1)
        yield f"{url}/v1"
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
