"""Ends what the hub has started when the hub itself cannot any more: after `kill -9`, or a crash.

A server over stdio ought to end when its input closes, and most do; a hanging one, or what it has started itself, does
not. So one small process watches the hub: it holds the other end of a pipe and a list of process groups, and when the
pipe closes it ends them. It works wherever there are POSIX process groups (Linux, macOS); on Windows a server ends by
its closed input only.
"""

import os
import sys
from contextlib import suppress
from functools import cache
from threading import Lock

_PROGRAM = """
import os, signal, sys, time
os.setsid()
os.chdir("/")
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    sign, group = line[0], int(line[1:])
    groups.add(group) if sign == "+" else groups.discard(group)
def end(number):
    for group in list(groups):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            groups.discard(group)
        except PermissionError:
            pass
end(signal.SIGTERM)
deadline = time.monotonic() + 2.0
while groups and time.monotonic() < deadline:
    time.sleep(0.05)
    end(0)
end(signal.SIGKILL)
"""


class Guardian:
    """Keeps the list of process groups that must not outlive this process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._groups: set[int] = set()
        self._pipe = -1
        self.pid = 0
        """The watching process; 0 before there is one."""

    def watch(self, group: int) -> None:
        """Have a process group ended with this process."""
        with self._lock:
            self._groups.add(group)
            self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Take note that a process group has ended: its number may soon be another's."""
        with self._lock:
            self._groups.discard(group)
            self._tell(f"-{group}\n")

    def close(self) -> None:
        """Have what is still watched ended now, as when this process ends."""
        with self._lock:
            if self._pipe >= 0:
                os.close(self._pipe)
            self._pipe = -1
            self._groups.clear()

    def _tell(self, line: str) -> None:
        if self._pipe >= 0:
            try:
                os.write(self._pipe, line.encode())
            except BrokenPipeError:  # somebody killed it
                os.close(self._pipe)
                self._pipe = -1
                with suppress(ChildProcessError):
                    os.waitpid(self.pid, os.WNOHANG)
            else:
                return
        if self._groups:
            self._start()
            for group in self._groups:
                os.write(self._pipe, f"+{group}\n".encode())

    def _start(self) -> None:
        # Not by subprocess: the process lasts as long as this one, and nobody waits for it. Both ends of the pipe are
        # closed in whatever else is started.
        watched, self._pipe = os.pipe()
        nowhere = os.open(os.devnull, os.O_RDWR)
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-c", _PROGRAM],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, watched, 0),
                    (os.POSIX_SPAWN_DUP2, nowhere, 1),
                    (os.POSIX_SPAWN_DUP2, nowhere, 2),
                ],
            )
        finally:
            os.close(watched)
            os.close(nowhere)


class _NoGuardian(Guardian):
    """Where there are no process groups."""

    def watch(self, group: int) -> None:
        pass

    def forget(self, group: int) -> None:
        pass


@cache
def guardian() -> Guardian:
    """Return the process's one guardian."""
    return Guardian() if hasattr(os, "killpg") else _NoGuardian()
