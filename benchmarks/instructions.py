"""How many instructions a request takes, counted by valgrind: the same within a per cent, however busy the machine is.

    python benchmarks/instructions.py [--shape small] [--seconds 12] [--c-functions 40] [--functions 40]

CPU time says what a request costs, and needs an idle machine; instructions say what a change has saved, and do not. The
same load and upstream as in `gateway.py`; what the server does of its own accord meanwhile is counted apart, while it
idles, and taken off. The kernel's part is not counted.

`--c-functions` lists what takes most by itself. `--functions` lists Python's functions with all that they call; it
needs Python 3.12 or newer, which then gives each of them a frame of its own, so that the whole is a third dearer.
"""

from __future__ import annotations

import argparse
import bisect
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import gateway

WARM_SECONDS = 3.0
IDLE_SECONDS = 8.0
LINE = re.compile(r"[-+*\d]\S* (\d+)")
"""A line of costs: where, and how many instructions."""


class Dump(NamedTuple):
    """What one stretch of time took, by function: by itself, and with what it calls."""

    total: int
    own: dict[str, int]
    inclusive: dict[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=gateway.SHAPES, default="small")
    parser.add_argument("--seconds", type=float, default=12.0, help="of load that is counted")
    parser.add_argument("--connections", type=int, default=gateway.CONNECTIONS)
    parser.add_argument("--c-functions", type=int, default=0, metavar="N", help="list so many of the interpreter's")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="list so many of Python's (from 3.12 on)")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    if options.functions and sys.version_info < (3, 12):
        parser.error("--functions needs Python 3.12 or newer")
    with tempfile.TemporaryDirectory() as folder:
        count(options, Path(folder))


def count(options: argparse.Namespace, folder: Path) -> None:
    upstream = gateway.free_port()
    serving = subprocess.Popen([sys.executable, gateway.__file__, "--serve-upstream", str(upstream)])
    try:
        time.sleep(0.5)
        done, busy, idle, names = counted(options, upstream, folder)
    finally:
        serving.terminate()
        serving.wait()
    print(f"{(busy.total - idle.total) / done:,.0f} instructions a request ({options.shape}, {done} of them)")
    show("by itself", busy.own, done, options.c_functions)
    python = {name: cost for name, cost in named(busy.inclusive, names).items() if name.startswith("py::")}
    show("with all it calls", python, done, options.functions)


def counted(options: argparse.Namespace, upstream: int, folder: Path) -> tuple[int, Dump, Dump, str]:
    """Requests answered; what they took; what as long a time without any takes; names of addresses."""
    out = folder / "out"
    server = gateway.chatport(upstream)
    python = [sys.executable, *(["-X", "perf"] if options.functions else [])]
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--smc-check=all-non-file"]
    server.command = [*valgrind, f"--callgrind-out-file={out}", *python, *server.command[1:]]
    with gateway.started(server, folder / "server") as running:
        pid = running.process.pid

        def load(seconds: float) -> int:
            told = gateway.result(gateway.load(server.port, options.shape, options.connections, seconds))
            return int(told["done"])

        load(WARM_SECONDS)
        control(pid, "--instr=on")
        load(WARM_SECONDS)
        control(pid, "--zero")
        began = time.monotonic()
        done = load(options.seconds)
        took = time.monotonic() - began
        control(pid, "--dump")
        control(pid, "--zero")
        time.sleep(IDLE_SECONDS)
        control(pid, "--dump")
        control(pid, "--instr=off")
        names = Path(f"/tmp/perf-{pid}.map")
        known = names.read_text(encoding="utf-8") if options.functions else ""
    names.unlink(missing_ok=True)
    busy, idle = read(Path(f"{out}.1")), read(Path(f"{out}.2"))
    return done, busy, idle._replace(total=int(idle.total * took / IDLE_SECONDS)), known


def control(pid: int, what: str) -> None:
    """Tells the running valgrind something, and gives it time to do so."""
    subprocess.run(["callgrind_control", what, str(pid)], check=True, capture_output=True)
    time.sleep(0.5)


def read(path: Path) -> Dump:
    """A file of callgrind's: a name is written out once and is a number from then on; a line of costs that follows
    `calls=` is of the function that was called."""
    own: dict[str, int] = defaultdict(int)
    inclusive: dict[str, int] = defaultdict(int)
    written: dict[str, str] = {}
    function, called, total = "", "", 0

    def name(text: str) -> str:
        number, _, said = text.partition(" ")
        return re.sub(r"'\d+$", "", written.setdefault(number, said))

    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("fn="):
            function = name(line[3:])
        elif line.startswith("cfn="):
            called = name(line[4:])
        elif line.startswith("totals: "):
            total = int(line.split()[1])
        elif found := LINE.match(line):
            if called:
                inclusive[called] += int(found[1])
                called = ""
            elif function:
                own[function] += int(found[1])
    return Dump(total, own, inclusive)


def named(costs: dict[str, int], names: str) -> dict[str, int]:
    """Costs of addresses as those of the Python functions that the interpreter says are there."""
    places = sorted(
        (int(begin, 16), int(size, 16), name)
        for begin, size, name in (line.split(maxsplit=2) for line in names.splitlines())
    )
    told: dict[str, int] = defaultdict(int)
    for where, cost in costs.items():
        address = int(where, 16) if re.fullmatch(r"0x[0-9a-f]+", where) else 0
        at = bisect.bisect_right(places, (address, sys.maxsize, "")) - 1
        begin, size, name = places[at] if at >= 0 else (0, 0, "")
        told[name if begin <= address < begin + size else where] += cost
    return told


def show(what: str, costs: dict[str, int], done: int, most: int) -> None:
    if most:
        print(f"\n{'a request':>10}  {what}")
    for name, cost in sorted(costs.items(), key=lambda item: -item[1])[:most]:
        print(f"{cost / done:>10,.0f}  {name.removeprefix('py::')}")


if __name__ == "__main__":
    main()
