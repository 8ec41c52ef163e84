"""The port, taken before anything is loaded: whoever can't have it learns so at once."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress

from chatport.cli.endings import Ending, end


def bound(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet. Ends the program with a sentence where that can't be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        end(Ending.PORT, f"There is no address for the host {host}: {error.strerror}.")
    sock = socket.socket(family, kind, protocol)
    if os.name != "nt":
        # A server that was just stopped may be followed by the next one at once.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        end(Ending.PORT, refusal(host, port, error))
    return sock


def bound_unix(path: str) -> socket.socket:
    """The same on a Unix socket. One that nobody listens on any more, left by a server that was killed, is replaced."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode) and _is_deserted(path):
                os.unlink(path)
        sock.bind(path)
    except OSError as error:
        sock.close()
        taken = error.errno == errno.EADDRINUSE
        reason = "another program listens there, or it is no socket" if taken else error.strerror
        end(Ending.PORT, f"Can't listen on {path}: {reason}.")
    return sock


def _is_deserted(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def refusal(host: str, port: int, error: OSError) -> str:
    """Why the port can't be had, and what to do."""
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"Port {port} of {host} is taken by another program, perhaps another Chatport. "
                f"Choose another one (--port {port + 1 if port < 65535 else 8000}), or let --port 0 find a free one."
            )
        case errno.EACCES | errno.EPERM:
            return f"Port {port} needs administrator rights. Choose one from 1024 up, such as --port 8000."
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine. --host 127.0.0.1 listens for this machine, 0.0.0.0 for all."
        case _:
            return f"Can't listen on {host} port {port}: {error.strerror}."


def url_of(sock: socket.socket, *, secure: bool = False) -> str:
    """Where clients on this machine find the server. A Unix socket has no URL; what they ask for there is localhost."""
    if not isinstance(sock.getsockname(), tuple):
        return "https://localhost" if secure else "http://localhost"
    host, port = sock.getsockname()[:2]
    return url_at(host, port, secure=secure)


def url_at(host: str, port: int, *, secure: bool = False) -> str:
    """Where a server that listens on this address is found from this machine."""
    scheme = "https" if secure else "http"
    if host in {"0.0.0.0", "::"}:  # noqa: S104  compared, not listened on
        host = "127.0.0.1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
