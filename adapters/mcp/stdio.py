"""MCP over the standard streams of a process that we start, watch, and end with all its children."""

import os
import signal
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc
import structlog
from anyio.streams.memory import MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from interhub.adapters.errors import AdapterError, BadEndpoint, ProtocolViolation, RemoteTimeout, RemoteUnavailable
from interhub.adapters.guardian import guardian

MAX_LINE_BYTES = 64 * 1024 * 1024
_GRACE_S = 2.0
"""How long the process may take to end by itself once its input is closed (MCP 2025-11-25, lifecycle, shutdown)."""
_TERM_S = 2.0
_LINE_BYTES = 4096
_POLL_S = 0.02
_TAIL_LINES = 12
_SECRET_CHARS = 8
"""Shorter values of the environment are flags and names, and would be struck out of ordinary words."""

log = structlog.get_logger()


class StdioServer:
    """A server that runs as our child, in a process group of its own. Started by entering `streams`, once."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: str | Path | None, label: str) -> None:
        self._command = list(command)
        self._env = {**get_default_environment(), **env}
        self._secrets = tuple(value for value in env.values() if len(value) >= _SECRET_CHARS)
        self._cwd = cwd
        self._label = label
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._garbage = ""
        self._garbage_lines = 0
        self._process: anyio.abc.Process | None = None

    @asynccontextmanager
    async def streams(self) -> AsyncGenerator[TransportStreams]:
        """Start the process and yield its message streams; ends it, and whatever it started, on the way out.

        The read stream closes when the process closes its output or ends.

        Raises:
            BadEndpoint: the command or the folder does not exist or may not be used.
        """
        process = self._process = await self._start()
        received, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        assert process.stdin is not None
        async with received, read, write, outgoing, anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, process, received)
            tasks.start_soon(self._listen, process)

            async def send() -> None:
                stdin = process.stdin
                assert stdin is not None
                try:
                    async for item in outgoing:
                        line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                        await stdin.send(line.encode() + b"\n")
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                    received.close()  # nothing more can be said: let the session see the end

            tasks.start_soon(send)
            try:
                yield read, write
            finally:
                with anyio.CancelScope(shield=True):
                    await self._stop(process)
                tasks.cancel_scope.cancel()

    async def diagnose(self, error: AdapterError) -> AdapterError:
        """Say what became of the process, where all that is known is that a session ended or never began."""
        if not isinstance(error, RemoteUnavailable):
            return error
        await self._settled()
        return self._fault(f"did not answer within {error.timeout_s:g} s" if isinstance(error, RemoteTimeout) else "")

    def _fault(self, doing: str) -> AdapterError:
        tail = "\n".join(self._tail)
        said = f"; the end of its error output:\n{tail}" if tail else "; it wrote nothing to its error output"
        code = self._process.returncode if self._process else None
        if self._garbage and code is None:
            return ProtocolViolation(
                self._label,
                f"it prints on its standard output what is not MCP ({self._garbage!r}){said if tail else ''}",
            )
        if code is None:
            doing = doing or "closed its standard output"
            return RemoteUnavailable(self._label, f"{self._command[0]} {doing}{said}")
        how = f"ended by signal {-code}" if code < 0 else f"exited with status {code}"
        if self._garbage:
            said = f"; it had printed on its standard output what is not MCP ({self._garbage!r}){said if tail else ''}"
        return RemoteUnavailable(self._label, f"{self._command[0]} {how}{said}")

    async def _start(self) -> anyio.abc.Process:
        if not self._command:
            raise BadEndpoint(self._label, "no command is given", "give the server's program and its arguments")
        if self._cwd and not await anyio.Path(self._cwd).is_dir():
            raise BadEndpoint(self._label, f"the folder {str(self._cwd)!r} does not exist", "set another `cwd`")
        program = self._command[0]
        try:
            process = await anyio.open_process(
                self._command, env=self._env, cwd=self._cwd or None, start_new_session=True
            )
        except FileNotFoundError:
            raise BadEndpoint(
                self._label, f"the program {program!r} is not installed", "install it, or give its full path"
            ) from None
        except PermissionError:
            raise BadEndpoint(self._label, f"the program {program!r} may not be executed") from None
        except (OSError, ValueError) as error:
            raise BadEndpoint(self._label, f"the program {program!r} could not be started: {error}") from error
        guardian().watch(process.pid)
        log.info("mcp_process_started", agent=self._label, program=program, pid=process.pid)
        return process

    async def _read(
        self, process: anyio.abc.Process, received: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> None:
        stdout = process.stdout
        assert stdout is not None
        begun: list[bytes] = []  # of a line whose end has not come
        size = 0
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, ConnectionError):
            async with received:
                async for chunk in stdout:
                    first, *more = chunk.split(b"\n")
                    begun.append(first)
                    size += len(first)
                    if more:
                        lines = [b"".join(begun), *more[:-1]]
                        begun, size = [more[-1]], len(more[-1])
                        for line in lines:
                            if line.strip() and (message := self._parse(line)) is not None:
                                await received.send(message)
                    if size > MAX_LINE_BYTES:
                        self._note_garbage(b"".join(begun)[:200])
                        break
        # The session is gone: keep the pipe empty, so that the process can get to its end.
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, ConnectionError, anyio.EndOfStream):
            while True:
                await stdout.receive()

    def _parse(self, line: bytes) -> SessionMessage | None:
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValueError:
            self._note_garbage(line)
            return None

    def _note_garbage(self, line: bytes) -> None:
        self._garbage_lines += 1
        text = self._shown(line[:1000])[:200]
        self._garbage = self._garbage or text
        if self._garbage_lines == 1:
            log.warning("mcp_stdout_garbage", agent=self._label, line=text)

    async def _listen(self, process: anyio.abc.Process) -> None:
        """Keep the last lines of the error output."""
        assert process.stderr is not None
        rest = b""
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, ConnectionError):
            async for chunk in process.stderr:
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[-4096:]
                for line in lines:
                    text = self._shown(line)[:500]
                    if text:
                        self._tail.append(text)
                        log.debug("mcp_stderr", agent=self._label, line=text)
        if rest.strip():
            self._tail.append(self._shown(rest)[:500])

    def _shown(self, line: bytes) -> str:
        """Return what the process printed as it may be told: without the secrets that we gave it."""
        text = line[:_LINE_BYTES].decode("utf-8", "replace").strip()
        for secret in self._secrets:
            text = text.replace(secret, "(hidden)")
        return text

    async def _settled(self) -> None:
        """Wait, for a moment at most, until a process that closed its output has ended and its last words are read."""
        if self._process is not None:
            await _ended(self._process, 0.5)
            with anyio.move_on_after(0.1):
                await anyio.sleep(_POLL_S * 2)

    async def _stop(self, process: anyio.abc.Process) -> None:
        assert process.stdin is not None
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.stdin.aclose()
        if not await _ended(process, _GRACE_S):
            _signal_group(process.pid, signal.SIGTERM)
            if not await _ended(process, _TERM_S):
                _signal_group(process.pid, signal.SIGKILL)
                await _ended(process, _TERM_S)
        _signal_group(process.pid, signal.SIGKILL)  # what it started and left behind
        guardian().forget(process.pid)
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.aclose()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


async def _ended(process: anyio.abc.Process, within_s: float) -> bool:
    """Tell whether the process ended in time.

    Polled: `Process.wait` also waits until its pipes close, which a grandchild that inherited them can prevent.
    """
    deadline = anyio.current_time() + within_s
    while process.returncode is None and anyio.current_time() < deadline:  # noqa: ASYNC110  # see above
        await anyio.sleep(_POLL_S)
    return process.returncode is not None
