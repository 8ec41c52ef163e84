"""Certificates, made for the run that uses them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and upstream.test that signs itself, with its key, made for this run."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    openssl = shutil.which("openssl")
    if openssl is None:
        if "CI" in os.environ:
            pytest.fail("openssl is not installed")
        pytest.skip("openssl is not installed")
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:upstream.test", "-keyout", str(file), "-out", f"{file}.crt"]
    subprocess.run([openssl, "req", *options.split(), *names], check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file
