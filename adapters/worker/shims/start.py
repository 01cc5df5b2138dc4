"""The worker's first file: takes the wire's file descriptors away, then runs a framework's shim.

Run as `python start.py SHIM PARENT_PID`. Frameworks print (CrewAI draws panels on standard output), so before any of
them is imported the wire moves to other descriptors, standard output becomes standard error, and standard input empty.
"""

import ctypes
import importlib
import importlib.util
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Run the shim named on the command line until the hub closes the wire."""
    shim, parent = sys.argv[1], int(sys.argv[2])
    wire_in, wire_out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    _die_with(parent)
    here = Path(__file__).resolve().parent
    # Only the agent's own folder belongs on the path, not this one.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    spec = importlib.util.spec_from_file_location(
        "interhub_worker", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    assert spec is not None, "the file has a spec"
    assert spec.loader is not None, "the file has a loader"
    package = importlib.util.module_from_spec(spec)
    sys.modules["interhub_worker"] = package
    spec.loader.exec_module(package)
    importlib.import_module(f"interhub_worker.{shim}").main(wire_in, wire_out)


def _die_with(parent: int) -> None:
    """End this process and all it started when the hub is gone, even by `kill -9`.

    The wire's end says so on every system; on Linux the kernel does too, should nobody be reading the wire.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: os.killpg(0, signal.SIGKILL))
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked to be told
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
