"""What the benchmarks of the hub share: a hub in a process of its own, and a client that costs little itself."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

INTERHUB: tuple[str, ...] = (sys.executable, "-m", "interhub.hub.cli")
START_S = 60.0
QUIET = {"OTEL_INSTRUMENTATION_A2A_SDK_ENABLED": "false"}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A process under measurement."""

    url: str
    pid: int
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What a caller has to send."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def resident_kb(self) -> int:
        """Return the memory that it holds."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))

    def cpu_s(self) -> float:
        """Return the processor time that it has taken so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self, path: str, body: object | None = None) -> Any:
        """Ask over plain HTTP, once: for setting up."""
        data = None if body is None else json.dumps(body).encode()
        headers = {**self.headers, "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=60) as answer:
            return json.loads(answer.read())


@contextmanager
def hub(data: Path, env: Mapping[str, str] | None = None) -> Generator[Server]:
    """Start a hub on a data directory and a free port; stop it at the end."""
    data.mkdir(parents=True, exist_ok=True)
    log = data.parent / f"{data.name}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*INTERHUB, "--data-dir", str(data), "serve", "--port", "0"],
            stdout=out,
            stderr=out,
            env={**os.environ, **QUIET, **(env or {})},
            start_new_session=True,
        )
    try:
        url = _announced(process, data / "hub.json", log)
        yield Server(url=url, pid=process.pid, key=(data / "api.key").read_text().strip())
    finally:
        _stop(process)


@contextmanager
def program(path: Path, *arguments: str) -> Generator[Server]:
    """Start a Python program that prints its address first; stop it at the end."""
    process = subprocess.Popen(
        [sys.executable, str(path), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **QUIET},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url.startswith("http"):
            sys.exit(f"{path} did not start: {url}")
        yield Server(url=url, pid=process.pid)
    finally:
        _stop(process)


def add_local(server: Server, agent_id: str, target: str) -> None:
    """Register Python functions as an agent."""
    endpoint = {"binding": "LOCAL", "options": {"target": target}}
    server.ask("/api/agents", {"kind": "endpoint", "adapter": "local", "id": agent_id, "endpoint": endpoint})


class Caller:
    """One keep-alive connection that posts JSON and reads the answer: HTTP/1.1 with nothing more than that needs."""

    def __init__(self, server: Server, path: str, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(server.url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        lines = {"Host": parts.netloc, "Content-Type": "application/json", **server.headers, **(headers or {})}
        self._head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, body: bytes) -> bytes:
        """Post a body and return that of the answer."""
        async with self._answer(body) as (reader, headers):
            if "content-length" in headers:
                return await reader.readexactly(int(headers["content-length"]))
            pieces = [piece async for piece in _chunks(reader)]
            return b"".join(pieces)

    async def first_event(self, body: bytes) -> float:
        """Post a body, and return the seconds until the first event of its stream; the stream is read to its end."""
        begun = time.perf_counter()
        first = 0.0
        async with self._answer(body) as (reader, _):
            async for piece in _chunks(reader):
                if not first and b"data:" in piece:
                    first = time.perf_counter() - begun
        return first

    async def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()

    @asynccontextmanager
    async def _answer(self, body: bytes) -> AsyncGenerator[tuple[asyncio.StreamReader, dict[str, str]]]:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=2**22)
        self._writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        if " 200 " not in status:
            raise RuntimeError(f"{status}: {(await self._reader.read(2000)).decode(errors='replace')}")
        yield self._reader, headers


async def _chunks(reader: asyncio.StreamReader) -> AsyncGenerator[bytes]:
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)


async def rate(callers: int, total: int, work: Callable[[int, int], Coroutine[Any, Any, object]]) -> float:
    """Return how often a second `work(caller, number)` was done by so many callers at once."""
    numbers = iter(range(total))

    async def call(caller: int) -> None:
        for number in numbers:
            await work(caller, number)

    begun = time.perf_counter()
    await asyncio.gather(*(call(caller) for caller in range(callers)))
    return total / (time.perf_counter() - begun)


def spread(seconds: list[float]) -> str:
    """Say median and ninth decile, in milliseconds."""
    return f"p50 {median(seconds) * 1000:.1f} ms, p90 {quantiles(seconds, n=10)[-1] * 1000:.1f} ms"


def _announced(process: "subprocess.Popen[Any]", place: Path, log: Path) -> str:
    give_up = time.monotonic() + START_S
    while True:
        if process.poll() is not None or time.monotonic() > give_up:
            sys.exit(f"the hub did not start: {log.read_text()[-1000:]}")
        try:
            url = str(json.loads(place.read_text())["url"])
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return url
        except (OSError, ValueError, urllib.error.URLError):
            time.sleep(0.05)


def _stop(process: "subprocess.Popen[Any]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
