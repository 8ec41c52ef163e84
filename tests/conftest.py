"""What every test may ask for: the real program on a port, and the weights of the default model."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest
from hypothesis import settings

from support.certificates import certificate
from support.serving import model_server, scripted_server

__all__ = ["certificate", "model_server", "scripted_server", "smollm2_path"]


# No deadline: a machine that is busy with something else is no fault of the program's. The same examples in each CI
# run, so that one that fails there fails here.
settings.register_profile("chatport", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("chatport")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what runs the model: it wants the cores to itself, so `make test` runs that alone, in one process. (Two
    processes, whose engines wait for each other's threads, took a quarter longer.)"""
    for item in items:
        if isinstance(item, pytest.Function) and "smollm2_path" in item.fixturenames:
            item.add_marker(pytest.mark.model)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The weights of the default model. Missing, the test is skipped; in CI it fails."""
    home = os.environ.get("CHATPORT_TEST_HOME") or platformdirs.user_data_dir("chatport", appauthor=False)
    path = Path(os.environ.get("CHATPORT_TEST_MODEL") or Path(home, "models", "smollm2-135m.gguf"))
    if not path.exists():
        reason = f"{path} is not there; `make test` fetches it"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    return path
