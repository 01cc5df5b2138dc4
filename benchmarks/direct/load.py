"""Callers of one tool over HTTP/1.1 connections that are kept, in either era, and what they saw."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools
import orjson

_ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "load", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "load", "version": "1"}}
_TRACE = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is called."""

    url: str
    tool: str = "echo"
    key: str = ""
    modern: bool = True


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a load saw."""

    calls_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms_per_call: float
    """Of the processes that were watched; 0 without any."""


class Caller(asyncio.Protocol):
    """One connection, one session, one call at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._where = urlsplit(target.url)
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[bytes] | None = None
        self._body: list[bytes] = []
        self._session = ""
        self._head = b""

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, self._where.hostname or "", self._where.port or 80)
        lines = (
            f"POST {self._where.path} HTTP/1.1\r\nHost: {self._where.netloc}\r\nContent-Type: application/json\r\n"
            f"Accept: application/json, text/event-stream\r\n{_TRACE}"
        )
        if self._target.key:
            lines += f"Authorization: Bearer {self._target.key}\r\n"
        if self._target.modern:
            name = self._target.tool
            lines += f"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: {name}\r\n"
        else:
            self._head = lines.encode()
            await self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": _HELLO})
            lines += "MCP-Protocol-Version: 2025-11-25\r\n"
            if self._session:
                lines += f"Mcp-Session-Id: {self._session}\r\n"
            self._head = lines.encode()
            await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self._head = lines.encode()

    async def call(self, number: int) -> None:
        params: dict[str, Any] = {"name": self._target.tool, "arguments": {"text": "hello"}}
        if self._target.modern:
            params["_meta"] = _ENVELOPE
        answer = await self.post({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
        if b'"hello"' not in answer or b'"error"' in answer or b'"isError":true' in answer:
            raise RuntimeError(f"{self._target.url} answered {answer[:500]!r}")

    async def post(self, message: dict[str, Any]) -> bytes:
        assert self._transport is not None, "it is open"
        body = orjson.dumps(message)
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body))
        return await self._waiter

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc or ConnectionError(f"{self._target.url} closed the connection"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"mcp-session-id":
            self._session = value.decode().strip()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body, self._body = b"".join(self._body), []
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(body)


async def load(target: Target, *, callers: int, seconds: float, pids: Sequence[int] = ()) -> Seen:
    """Call for some seconds, after a tenth of that to warm up, from a number of callers at once."""
    opened = [Caller(target) for _ in range(callers)]
    for caller in opened:
        await caller.open()
    took: list[float] = []

    async def work(caller: Caller, until: float, into: list[float]) -> None:
        number = 0
        while (began := time.perf_counter()) < until:
            number += 1
            await caller.call(number)
            into.append(time.perf_counter() - began)

    try:
        warm = time.perf_counter() + seconds / 10
        await asyncio.gather(*(work(caller, warm, []) for caller in opened))
        used, began = cpu_s(pids), time.perf_counter()
        await asyncio.gather(*(work(caller, began + seconds, took) for caller in opened))
        lasted, used = time.perf_counter() - began, cpu_s(pids) - used
    finally:
        for caller in opened:
            caller.close()
    took.sort()
    return Seen(
        calls_per_s=len(took) / lasted,
        p50_ms=took[len(took) // 2] * 1000,
        p99_ms=took[int(len(took) * 0.99)] * 1000,
        cpu_ms_per_call=used / len(took) * 1000,
    )


def cpu_s(pids: Sequence[int]) -> float:
    """Return the seconds of CPU that processes have used, with all of their threads."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
