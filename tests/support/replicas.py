"""Several hubs on one PostgreSQL, a load balancer before them, and what a client asks of them over HTTP."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tests.support.hub_process import Cli, cli, end, wait_until_ready

KEY = "ih_test-key-of-all-replicas-0123456789"


class NotServed(Exception):
    """No hub answered: refused, broken off, or not in time."""


class Refused(Exception):
    """A hub answered with a problem."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(status, body)
        self.status = status


class Client:
    """Asks a hub, or the balancer before several, over REST."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = 10.0) -> Any:
        """Ask once.

        Raises:
            NotServed: nobody answered.
            Refused: the hub said no.
        """
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(self._url() + path, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            if error.code in (502, 503, 504):
                raise NotServed(said) from error
            raise Refused(error.code, said) from error
        except (OSError, ValueError) as error:
            raise NotServed(str(error)) from error

    def insist(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, within_s: float = 60.0) -> Any:
        """Ask until somebody answers: what is asked must do the same when it is asked twice."""
        give_up = time.monotonic() + within_s
        while True:
            try:
                return self.ask(method, path, body)
            except NotServed:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.1)

    def events(self, run_id: str, after: int = 0) -> Generator[dict[str, Any]]:
        """Yield a run's events as they come, until the stream ends or breaks off."""
        path = f"/api/runs/{run_id}/events?after={after}"
        headers = {"Authorization": f"Bearer {KEY}", "Accept": "text/event-stream"}
        with (
            suppress(OSError),
            urllib.request.urlopen(urllib.request.Request(self._url() + path, headers=headers), timeout=60) as answer,
        ):
            for line in answer:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])


@dataclass
class Hub:
    """One hub's process, of which there may be several one after the other on its data directory."""

    command: Cli
    log: IO[str]
    process: "subprocess.Popen[str] | None" = None
    url: str = ""
    frozen: bool = False
    codes: list[int] = field(default_factory=list[int])
    """How its processes ended."""

    @property
    def client(self) -> Client:
        """Asks this hub alone."""
        return Client(lambda: self.url)

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self.process is not None, "it was started"
        return self.process.pid

    def begin(self) -> None:
        """Start its process."""
        self.frozen = False
        self.process = self.command.start("serve", "--port", "0", log=self.log)

    def ready(self) -> None:
        """Return when it answers."""
        assert self.process is not None, "it was started"
        try:
            self.url = wait_until_ready(self.command, self.process)
        except RuntimeError as error:
            raise RuntimeError(f"{error}: {Path(self.log.name).read_text()[-2000:]}") from error

    def start(self) -> None:
        """Start its process, and return when it answers."""
        self.begin()
        self.ready()

    def kill(self) -> None:
        """End it as a crash would."""
        self._signal(signal.SIGKILL)
        assert self.process is not None, "it was started"
        self.process.communicate(timeout=10)
        self.codes.append(self.process.returncode)

    def freeze(self) -> None:
        """Stop it in the midst of what it does."""
        self.frozen = True
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.frozen = False
        self._signal(signal.SIGCONT)

    def ended(self, within_s: float) -> int | None:
        """Return the code that it ends with by itself, or None when it goes on."""
        assert self.process is not None, "it was started"
        try:
            self.process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            return None
        self.codes.append(self.process.returncode)
        return self.process.returncode

    def stop(self) -> None:
        """End it well, whatever state it is in."""
        if self.process is not None:
            if self.frozen and self.process.poll() is None:
                self.thaw()
            end(self.process)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def hub(folder: Path, url: str = "", settings: Mapping[str, str] | None = None) -> Hub:
    """Return a hub that is not started yet, with a data directory of its own; on SQLite without a URL."""
    environment = {"INTERHUB_AUTH__KEY": KEY, **({"INTERHUB_DATABASE_URL": url} if url else {}), **(settings or {})}
    command = cli(folder, environment)
    return Hub(command, (folder / "log").open("a"))


@contextmanager
def hubs(folder: Path, url: str, count: int, settings: Mapping[str, str] | None = None) -> Generator[list[Hub]]:
    """Start hubs on a database, and stop them at the end."""
    made = [hub(folder / f"replica-{number}", url, settings) for number in range(count)]
    try:
        for one in made:
            one.begin()
        for one in made:
            one.ready()
        yield made
    finally:
        for one in made:
            one.stop()
            one.log.close()


class Balancer:
    """Passes each connection on to one hub after the other; one that does not take it is passed over."""

    def __init__(self, targets: Sequence[Hub]) -> None:
        self._targets = targets
        self._turn = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="balancer", daemon=True)
        self._stopping: asyncio.Event | None = None

    def __enter__(self) -> "Balancer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join(10)

    @property
    def client(self) -> Client:
        """Asks whichever hub it is passed on to."""
        return Client(lambda: self.url)

    def _end(self) -> None:
        if self._stopping is not None:
            self._stopping.set()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._pass_on, sock=self._listener)
        await self._stopping.wait()
        server.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for _ in self._targets:
                self._turn += 1
                target = self._targets[self._turn % len(self._targets)]
                address = urlsplit(target.url)
                if target.frozen:
                    continue  # a health check would have found out
                try:
                    there = await asyncio.wait_for(asyncio.open_connection(address.hostname, address.port), 1.0)
                except (OSError, TimeoutError):
                    continue
                await _joined((reader, writer), there)
                return
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _joined(one: _Stream, other: _Stream) -> None:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    pumps = [asyncio.ensure_future(pump(one[0], other[1])), asyncio.ensure_future(pump(other[0], one[1]))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in pumps:
            each.cancel()
        other[1].close()
