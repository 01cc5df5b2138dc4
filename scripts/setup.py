"""Make `.venv` and install the locked requirements: `python scripts/setup.py core|dev`.

Standard library only. Shows each stage with its time, says in one line what went wrong, and costs a fraction of a
second when nothing has changed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
SOURCES = [ROOT / "pyproject.toml", ROOT / "requirements" / "build.txt", ROOT / "requirements" / "core.txt"]
ENOUGH_BYTES = 2 << 30


class SetupFailed(Exception):
    """One line that says what went wrong and what to do."""


def main(flavour: str) -> None:
    """Do what is left to do for a flavour."""
    wanted = fingerprint(flavour)
    stamp = VENV / "interhub.stamp"
    have = stamp.read_text().split() if stamp.is_file() else []
    if wanted in have and PYTHON.exists():
        return
    free = shutil.disk_usage(ROOT).free
    if free < ENOUGH_BYTES:
        raise SetupFailed(f"only {free >> 20} MiB are free on this disk; {ENOUGH_BYTES >> 20} MiB are needed")
    if not PYTHON.exists() or not same_python():
        stage("making .venv", lambda: venv.create(VENV, clear=True, with_pip=True, symlinks=os.name != "nt"))
    if not (PYTHON.parent / "uv").exists():
        stage(
            "installing the installer",
            lambda: run(
                [
                    str(PYTHON),
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--no-deps",
                    "--require-hashes",
                    "-r",
                    "requirements/build.txt",
                ]
            ),
        )
    locked = "requirements/dev.txt" if flavour == "dev" else "requirements/core.txt"
    stage(f"installing {locked}", lambda: uv("install", "--require-hashes", "-r", locked))
    stage("installing interhub", lambda: uv("install", "--no-deps", "--no-build-isolation", "-e", "."))
    stamp.write_text(" ".join([fingerprint("core"), wanted] if flavour == "dev" else [wanted]))


def fingerprint(flavour: str) -> str:
    """Return a digest of all that decides what is installed."""
    digest = hashlib.sha256(f"{flavour} {sys.version_info[:2]}".encode())
    for source in [*SOURCES, *([ROOT / "requirements" / "dev.txt"] if flavour == "dev" else [])]:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def same_python() -> bool:
    """Return whether .venv is of the Python that runs this."""
    asked = subprocess.run([PYTHON, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
    return asked.returncode == 0 and asked.stdout.strip() == str(sys.version_info[:2])


def uv(*arguments: str) -> None:
    """Run `uv pip` on .venv."""
    # uv does not read pip's configuration; a machine whose index is named there only would otherwise look elsewhere.
    environment = dict(os.environ, VIRTUAL_ENV=str(VENV))
    if not any(name in os.environ for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE")):
        command = [PYTHON, "-m", "pip", "config", "get", "global.index-url"]
        asked = subprocess.run(command, capture_output=True, text=True)
        if asked.returncode == 0 and asked.stdout.strip():
            environment["UV_DEFAULT_INDEX"] = asked.stdout.strip()
    run([str(PYTHON.parent / "uv"), "pip", *arguments], environment)


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run a command to its end; keep what it said where it failed."""
    pipe = subprocess.PIPE
    ended = subprocess.run(command, cwd=ROOT, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    if ended.returncode == 0:
        return
    said = ended.stdout.strip()
    (ROOT / ".venv" / "setup.log").write_text(said)
    raise SetupFailed(f"{diagnosis(said)} (all of it: .venv/setup.log)")


def diagnosis(said: str) -> str:
    """Return in one line what an installer's words mean."""
    lowered = said.lower()
    for signs, meaning in [
        (("no space left",), "the disk is full; free some space and run it again"),
        (
            ("hashes do not match", "hash mismatch", "these packages do not match"),
            "a downloaded package is not the locked one; empty uv's cache (`uv cache clean`) and run it again",
        ),
        (
            (
                "dns",
                "name resolution",
                "network is unreachable",
                "connection refused",
                "could not connect",
                "timed out",
                "error sending request",
                "max retries",
                "failed to fetch",
                "could not find a version",
            ),
            "the package index could not be reached; check the network (or name a mirror with UV_DEFAULT_INDEX)",
        ),
        (("permission denied", "read-only file system"), "this folder cannot be written; clone into one that can"),
    ]:
        if any(sign in lowered for sign in signs):
            return meaning
    return said.splitlines()[-1] if said else "the installer failed and said nothing"


def stage(what: str, do: Callable[[], None]) -> None:
    """Show what is done, and how long it took."""
    print(f"setup: {what} ...", end="", flush=True)
    started = time.monotonic()
    try:
        do()
    except BaseException:
        print(" failed", flush=True)
        raise
    print(f" {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "core")
    except (SetupFailed, OSError) as failure:
        sys.exit(f"setup: {failure}")
    except KeyboardInterrupt:
        sys.exit("setup: interrupted")
