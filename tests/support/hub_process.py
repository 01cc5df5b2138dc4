"""A real hub in a process of its own, and the real command beside it. What was started is always stopped."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

COMMAND = (sys.executable, "-m", "interhub.hub.cli")
START_S = 60.0
_POLL_S = 0.02


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment without our own settings in it, whose user has their home in a folder of the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INTERHUB_")}
    return {**kept, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "NO_COLOR": "1", **(extra or {})}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """The command, on one data directory."""

    data_dir: Path
    home: Path
    cwd: Path
    env: Mapping[str, str]

    def __call__(self, *arguments: str, stdin: str = "", timeout_s: float = 120.0) -> Said:
        """Run a command to its end."""
        ended = subprocess.run(
            [*COMMAND, "--data-dir", str(self.data_dir), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.cwd,
            timeout=timeout_s,
            env=environment(self.home, self.env),
            check=False,
        )
        return Said(code=ended.returncode, out=ended.stdout, err=ended.stderr)

    def start(self, *arguments: str, log: IO[str] | None = None) -> "subprocess.Popen[str]":
        """Start a command that goes on. `log` takes its stderr: whoever writes much there would stop at a full pipe."""
        return subprocess.Popen(
            [*COMMAND, "--data-dir", str(self.data_dir), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log or subprocess.PIPE,
            text=True,
            cwd=self.cwd,
            env=environment(self.home, self.env),
            start_new_session=True,
        )


def cli(folder: Path, env: Mapping[str, str] | None = None) -> Cli:
    """Return the command on a data directory in a folder of the test's."""
    folder.mkdir(parents=True, exist_ok=True)
    return Cli(folder / "data", folder, folder, env or {})


@dataclass(frozen=True, kw_only=True)
class HubProcess:
    """A running hub."""

    url: str
    key: str
    pid: int
    process: "subprocess.Popen[str]"
    cli: Cli

    def get(self, path: str, *, key: str | None = None) -> tuple[int, bytes, Mapping[str, str]]:
        """GET a path; returns status, body and headers."""
        token = self.key if key is None else key
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)


@contextmanager
def hub_process(command: Cli, *arguments: str, log: IO[str] | None = None) -> Generator[HubProcess]:
    """Start a hub on a free port, and stop it at the end however it goes. Its log is `log`, or `hub.log` at home.

    The log is a file, since nobody reads it meanwhile: what its MCP servers say is in it too, and that fills a pipe.
    """
    with ExitStack() as stack:
        if log is None:
            log = stack.enter_context((command.home / "hub.log").open("a"))
        process = command.start("serve", "--port", "0", *arguments, log=log)
        stack.callback(end, process)
        try:
            url = wait_until_ready(command, process)
        except RuntimeError as error:
            raise RuntimeError(f"{error}; see {log.name}") from error
        key = (command.data_dir / "api.key").read_text().strip()
        yield HubProcess(url=url, key=key, pid=process.pid, process=process, cli=command)


def wait_until_ready(command: Cli, process: "subprocess.Popen[str]") -> str:
    """Return the URL that a hub announces.

    Raises:
        RuntimeError: it ended, or took too long.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the hub ended with {process.returncode}: {process.communicate()[1] or ''}")
        try:
            said = json.loads((command.data_dir / "hub.json").read_text())
            if said["pid"] == process.pid:
                return str(said["url"])
        except (OSError, ValueError):
            pass
        time.sleep(_POLL_S)
    raise RuntimeError("the hub did not become ready")


def end(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Stop a process and all of its group; return what it wrote."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()


def stop_background_hub(command: Cli) -> None:
    """Stop the hub that a command started in the background, if there is one."""
    command("stop")


def lines(text: str) -> Sequence[str]:
    """Return the lines that are not empty."""
    return [line for line in text.splitlines() if line.strip()]
