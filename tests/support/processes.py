"""Peers that the tests start: environments of their own, made once by uv, and processes that are always stopped."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".interhub" / "test-envs"


def environment(requirements: Path) -> Path:
    """Return the Python of an environment with what a hash-locked requirements file names, made if it is not there.

    It is kept under `.interhub/test-envs/<file>-<digest>`; processes that ask at the same time wait for the one that
    makes it.

    Raises:
        RuntimeError: uv could not make it; the message ends with uv's own words.
    """
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = ENVIRONMENTS / f"{requirements.stem}-{digest}"
    python = home / "bin" / "python"
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENTS / f".{home.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (home / ".installed").exists():
            _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(home))
            _uv("pip", "install", "--quiet", "--require-hashes", "--python", str(python), "-r", str(requirements))
            (home / ".installed").touch()
    return python


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A running process that said where it listens."""

    url: str
    pid: int
    log: Path
    """Where it appends what it executed, where it was started with `--log`."""

    def executions(self) -> list[dict[str, object]]:
        """Return the lines of its log."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]


@contextmanager
def peer(
    python: Path | str, script: Path, *arguments: str, log: Path | None = None, env: Mapping[str, str] | None = None
) -> Generator[Peer]:
    """Run a script that prints `{"url": ...}` as its first line once it answers; its process group is always stopped.

    Raises:
        RuntimeError: it ended before it answered; the message ends with what it printed.
    """
    command: Sequence[str] = [str(python), str(script), "--port", "0", *arguments]
    if log is not None:
        command = [*command, "--log", str(log)]
    minimal = {"PATH": os.environ.get("PATH", ""), "OTEL_INSTRUMENTATION_A2A_SDK_ENABLED": "false", **(env or {})}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=minimal, start_new_session=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("{"):
                process.wait(10)
                errors.seek(0)
                raise RuntimeError(f"{script.name} did not start: {line}{errors.read()[-2000:]}")
            yield Peer(url=json.loads(line)["url"], pid=process.pid, log=log or Path(os.devnull))
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[str]") -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        os.killpg(process.pid, how)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
    if process.stdout is not None:
        process.stdout.close()


def _uv(*arguments: str) -> None:
    done = subprocess.run([find_uv_bin(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"uv {' '.join(arguments[:2])} failed:\n{done.stderr[-2000:]}")
