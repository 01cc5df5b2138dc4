"""LangGraph's own server, as `langgraph dev` runs it, in a folder that is gone with it."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# It runs in an environment of its own.

import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

from langgraph_api.cli import run_server

GRAPH = Path(__file__).with_name("langgraph_graph.py")


def announce(port: int) -> None:
    """Say where it is once it answers."""
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ok", timeout=5):
                break
        except OSError:
            threading.Event().wait(0.05)
    assistants = urllib.request.Request(
        f"http://127.0.0.1:{port}/assistants/search", b"{}", {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(assistants) as answer:
        assistant = json.load(answer)[0]["assistant_id"]
    print(json.dumps({"url": f"http://127.0.0.1:{port}/a2a/{assistant}"}), file=REAL, flush=True)


REAL = os.fdopen(os.dup(1), "w")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.dup2(2, 1)  # it prints a banner
    sys.stdout = sys.stderr
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        threading.Thread(target=announce, args=(port,), daemon=True).start()
        run_server("127.0.0.1", port, reload=False, graphs={"clerk": f"{GRAPH}:graph"}, allow_blocking=True)


if __name__ == "__main__":
    main()
