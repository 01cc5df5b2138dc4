"""The hub in the background: found when it runs, started when it does not, stopped when asked.

Any number of processes may ask at once; the lock of the data directory lets one hub start, and all of them wait for it.
"""

import http.client
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from .datadir import DataDir, RunningHub, make_private
from .errors import HubNotRunning, Unusable
from .exits import Exit
from .settings import Settings

START_TIMEOUT_S = 60.0
"""Seconds that a start may take: two on an idle machine, many on one that is just logging its user in."""
_POLL_S = 0.05
_PROBE_TIMEOUT_S = 2.0
_BIG_LOG = 10 * 1024 * 1024


class StartFailed(Unusable):
    """A hub was started in the background, and ended at once."""

    def __init__(self, why: str, log_file: str) -> None:
        super().__init__(why, log_file)
        self.why = why
        self.log_file = log_file

    def __str__(self) -> str:
        return f"the hub did not start: {self.why}; its log is {self.log_file}"


def find_hub(home: DataDir, *, wait_s: float = START_TIMEOUT_S) -> RunningHub:
    """Return the running hub of a data directory; one that is just starting is waited for.

    Raises:
        HubNotRunning: none holds the directory, or it is not ready in time.
    """
    deadline = time.monotonic() + wait_s
    while (hub := home.running()) is None:
        if not home.is_held():
            raise HubNotRunning(str(home.path))
        if time.monotonic() > deadline:
            raise HubNotRunning(str(home.path), f"one was not ready within {wait_s:g} s")
        time.sleep(_POLL_S)
    return hub


def is_ready(hub: RunningHub) -> bool:
    """True when the hub answers `/readyz` with success."""
    address = urlsplit(hub.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def ensure_hub(settings: Settings, *, config: Path | None = None, timeout_s: float = START_TIMEOUT_S) -> RunningHub:
    """Return the running hub of the settings' data directory; start one in the background where none runs.

    A hub started here takes a free port when its usual one is taken by another program, unless somebody chose that
    port. It outlives this process.

    Raises:
        StartFailed: it ended at once; the message says why.
        HubNotRunning: it did not become ready in time.
        DataDirUnusable: the data directory cannot be made or written.
    """
    home = DataDir(settings.data_dir)
    deadline = time.monotonic() + timeout_s
    hub = home.running()
    if hub is not None and is_ready(hub):
        return hub
    home.prepare()
    options = ["--config", str(config.resolve())] if config is not None else []
    started = _Started(home, options)
    try:
        while time.monotonic() < deadline:
            hub = home.running()
            if hub is not None and is_ready(hub):
                return hub
            match started.ended():
                case None:
                    pass
                case Exit.ALREADY_RUNNING if home.is_held():
                    pass  # another was faster: wait for that one
                case Exit.ALREADY_RUNNING:
                    started = _Started(home, options)  # the other one is gone again
                case Exit.ADDRESS_IN_USE if "port" not in settings.server.model_fields_set:
                    started = _Started(home, options, port=0)
                case _:
                    raise StartFailed(started.last_words(), str(home.log_file))
            time.sleep(_POLL_S)
    finally:
        started.forget()
    raise HubNotRunning(str(home.path), f"it was not ready within {timeout_s:g} s; its log is {home.log_file}")


def stop_hub(home: DataDir, *, timeout_s: float = 30.0) -> RunningHub:
    """Stop the running hub and wait until it has let the data directory go.

    Raises:
        HubNotRunning: none runs.
        Unusable: it did not stop in time.
    """
    hub = find_hub(home)
    with suppress(ProcessLookupError):
        os.kill(hub.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while home.is_held():
        if time.monotonic() > deadline:
            raise Unusable(f"the hub (process {hub.pid}) did not stop within {timeout_s:g} s")
        time.sleep(_POLL_S)
    return hub


class _Started:
    """A hub started in the background, as long as we watch it."""

    def __init__(self, home: DataDir, options: list[str], *, port: int | None = None) -> None:
        self._log_file = home.log_file
        command = [sys.executable, "-m", "interhub.hub.cli", "--data-dir", str(home.path), *options, "serve"]
        command += ["--port", str(port)] if port is not None else []
        with suppress(OSError):
            if self._log_file.stat().st_size > _BIG_LOG:
                os.replace(self._log_file, self._log_file.with_suffix(".old.log"))
        make_private(self._log_file)
        with self._log_file.open("ab") as out:
            self._from = out.tell()
            # A session of its own: closing the terminal or the client must not end the hub that others use too.
            # In the data directory, so that it keeps no other one busy and reads no other one's settings file.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=home.path,
                start_new_session=True,
                creationflags=_DETACHED,
            )

    def ended(self) -> int | None:
        return self._process.poll()

    def last_words(self) -> str:
        """Return what it said at its end; it says that in its last line."""
        with self._log_file.open("rb") as log:
            log.seek(self._from)
            lines = log.read()[-4096:].decode(errors="replace").strip().splitlines()
        said = lines[-1].removeprefix("interhub: ") if lines else "it said nothing"
        return f"{said} (exit code {self._process.returncode})"

    def forget(self) -> None:
        """Let it go on by itself."""
        # Not waited for on purpose; without this, Popen warns of a process that still runs when it is collected.
        self._process.returncode = self._process.returncode or 0


_DETACHED = 0
if sys.platform == "win32":
    _DETACHED = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
