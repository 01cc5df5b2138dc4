"""A host at its end of a stdio server: what it says, what it reads, and the messages of both eras."""

import json
import math
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
INITIALIZE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"elicitation": {}, "sampling": {}, "roots": {"listChanged": True}},
        "clientInfo": {"name": "host", "version": "1"},
    },
}
INITIALIZED: dict[str, Any] = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def request(number: int | str, method: str, *, meta: Mapping[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    """A request of 2026-07-28."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": {"_meta": {**META, **(meta or {})}, **params}}


def legacy(number: int | str, method: str, **params: Any) -> dict[str, Any]:
    """A request of 2025-11-25."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def cancelled(number: int | str) -> dict[str, Any]:
    """The notification that takes a request back."""
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}


@dataclass
class Host:
    """A host at its end of the pipe."""

    lines: MemoryObjectSendStream[bytes]
    written: MemoryObjectReceiveStream[bytes]
    log: list[str] = field(default_factory=list[str])
    seen: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    async def say(self, *messages: object) -> None:
        for message in messages:
            await self.lines.send(json.dumps(message).encode() + b"\n")

    async def read(self) -> dict[str, Any]:
        line = await self.written.receive()
        assert b"\n" not in line
        message: dict[str, Any] = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        self.seen.append(message)
        return message

    async def answer_to(self, number: int | str | None) -> dict[str, Any]:
        while True:
            message = await self.read()
            if "method" not in message and message.get("id") == number:
                return message

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its result."""
        await self.say(message)
        answer = await self.answer_to(message["id"])
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def notice(self, method: str) -> dict[str, Any]:
        while True:
            message = await self.read()
            if message.get("method") == method:
                return message

    async def begin(self) -> dict[str, Any]:
        """Shake hands, as hosts of the older era do."""
        result = await self.ask(INITIALIZE)
        await self.say(INITIALIZED)
        return result

    def heard(self, method: str) -> list[dict[str, Any]]:
        """The notifications of one method that were read so far."""
        return [message for message in self.seen if message.get("method") == method]


@dataclass
class ProcessHost(Host):
    """A host and the real process that it started."""

    process: anyio.abc.Process = field(kw_only=True)

    async def leave(self) -> int:
        """Close stdin, and return the exit code of the process."""
        self.lines.close()
        return await self.process.wait()


@asynccontextmanager
async def process_host(command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> AsyncGenerator[ProcessHost]:
    """Start a stdio server as a host does; it has ended when the block is left."""
    send_line, lines = anyio.create_memory_object_stream[bytes](16)
    write, written = anyio.create_memory_object_stream[bytes](math.inf)
    async with await anyio.open_process(command, stderr=sys.stderr, env=env, cwd=cwd) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        async def speak() -> None:
            async with stdin:
                async for line in lines:
                    await stdin.send(line)

        async def hear() -> None:
            pieces = bytearray()
            with write:
                async for chunk in stdout:
                    pieces += chunk
                    if b"\n" in chunk:
                        *whole, rest = bytes(pieces).split(b"\n")
                        pieces = bytearray(rest)
                        for line in whole:
                            write.send_nowait(line)

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(speak)
                tasks.start_soon(hear)
                yield ProcessHost(send_line, written, process=process)
                send_line.close()
                with anyio.move_on_after(15):
                    await process.wait()
                tasks.cancel_scope.cancel()
        finally:
            for stream in (send_line, lines, write, written):
                stream.close()
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
