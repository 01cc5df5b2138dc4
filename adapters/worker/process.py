"""One worker process, and the hub's end of its wire."""

import copy
import json
import math
import os
import re
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import anyio
import anyio.abc
import orjson
import structlog
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.memory import MemoryObjectSendStream

from interhub.adapters.errors import (
    AdapterError,
    BadEndpoint,
    ConnectionLost,
    ProtocolViolation,
    RemoteUnavailable,
)
from interhub.adapters.guardian import guardian
from interhub.agent_cards import Json, JsonObject

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longest frame that a worker may send."""
MAX_GARBAGE_LINES = 20
"""Lines on the wire that are no frames before the worker is given up."""
LOG_BYTES = 5_000_000
"""A worker's log file is begun anew (the last one kept) beyond this."""
LOAD_FAILED = -32001
"""The wire's code for an agent that could not be imported."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a worker process runs."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    target: str
    """The agent's file and name, as `initialize` wants it."""
    state_dir: Path
    label: str
    """Names the agent in errors and logs."""
    log_file: Path | None = None
    """Where the process's own output goes; None for the hub's log, at level debug."""
    start_timeout_s: float = 120.0
    """How long importing the framework and the agent may take."""
    cancel_grace_s: float = 0.5
    """How long a cancelled task may take to end by itself before its process is made to."""


class EndedToCancel(RemoteUnavailable):
    """The process was ended because a cancelled task did not stop: the other calls in it have nothing to do with it."""

    def __init__(self, where: str, key: str) -> None:
        super().__init__(where, "its process was ended to stop a cancelled task")
        self.args = (where, key)
        self.key = key
        """The cancelled task's."""


class WorkerProcess:
    """A started worker. Made by `start_worker`."""

    def __init__(self, program: Program, process: anyio.abc.Process) -> None:
        self.program = program
        self.card: JsonObject = {}
        self.concurrent = False
        self.stateful = False
        self.busy = 0
        """Calls in flight."""
        self.completed = 0
        """Calls that ended in any way but the process's death."""
        self.ended = anyio.Event()
        """Set when the process is gone or given up."""
        self.killed = False
        """Ended by us, not by itself."""
        self._process = process
        self._why_ended: AdapterError | None = None
        self._reaped = False
        self._log_ended = anyio.Event()
        self._pending: dict[int, MemoryObjectSendStream[JsonObject]] = {}
        self._next_id = 0
        self._write_lock = anyio.Lock()
        self._said: deque[str] = deque(maxlen=40)

    @property
    def pid(self) -> int:
        """The process's id, which is its group's too."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it may be given calls."""
        return not self.ended.is_set()

    async def request(
        self,
        method: str,
        params: Mapping[str, Json],
        on_update: "Callable[[JsonObject], Awaitable[None]] | None" = None,
    ) -> JsonObject:
        """Ask, and return the result. What comes before it is handed to `on_update`, one after the other.

        Raises:
            ConnectionLost: the process ended before it answered.
            ProtocolViolation: it answered with an error of the wire.
        """
        self._next_id += 1
        request_id = self._next_id
        send, receive = anyio.create_memory_object_stream[JsonObject](math.inf)
        self._pending[request_id] = send
        try:
            if not self.alive:
                raise self._gone()
            await self._write({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
            async for frame in receive:
                if "method" not in frame:
                    return self._result(frame)
                if on_update is not None:
                    await on_update(cast("JsonObject", frame.get("params") or {}))
            raise self._gone()
        finally:
            del self._pending[request_id]
            send.close()
            receive.close()

    async def cancel(self, key: str) -> None:
        """Stop a task: ask, and when it does not stop by itself end the process with all that it started.

        Takes at most the grace and a moment. Shielded: a cancelled caller waits for it.
        """
        with anyio.CancelScope(shield=True):
            try:
                with anyio.move_on_after(self.program.cancel_grace_s):
                    answer = await self.request("CancelTask", {"id": key})
                    if answer.get("clean") is True:
                        return
            except AdapterError:
                pass
            _log.info("worker_killed", agent=self.program.label, pid=self.pid, why="a cancelled task did not stop")
            await self.kill(EndedToCancel(self.program.label, key))

    async def kill(self, why: AdapterError | None = None) -> None:
        """End the process and its group: SIGTERM, then SIGKILL. Returns when it is gone."""
        if not self.ended.is_set():  # else it has ended by itself, which is the better reason
            self._why_ended = self._why_ended or why
            self.killed = True
            self.ended.set()
        if self._reaped:
            return  # its group's number may be another's by now
        with anyio.CancelScope(shield=True):
            self._signal(signal.SIGTERM)
            with anyio.move_on_after(0.3):
                await self._process.wait()
            self._signal(signal.SIGKILL)
            await self._process.wait()
            self._reaped = True
            guardian().forget(self._process.pid)

    async def serve_wire(self) -> None:
        """Read the wire until it ends; everything that waits then learns that the process is gone."""
        assert self._process.stdout is not None, "started with pipes"
        lines = BufferedByteReceiveStream(self._process.stdout)
        garbage = 0
        try:
            while True:
                line = await lines.receive_until(b"\n", MAX_LINE_BYTES)
                try:
                    frame = orjson.loads(line)
                    if not isinstance(frame, dict):
                        raise ValueError("not an object")
                except ValueError:
                    garbage += 1
                    self._said.append(line.decode(errors="replace")[:500])
                    if garbage > MAX_GARBAGE_LINES:
                        what = f"it writes lines on its wire that are no JSON-RPC, such as {line[:80]!r}"
                        self._why_ended = self._why_ended or ProtocolViolation(self.program.label, what)
                        break
                    continue
                try:
                    await self._take(cast("JsonObject", frame))
                except (TypeError, AttributeError):  # an id or params that JSON-RPC does not have
                    self._why_ended = ProtocolViolation(self.program.label, f"it sent no JSON-RPC: {line[:80]!r}")
                    break
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass
        except anyio.DelimiterNotFound:
            what = f"it wrote a line longer than {MAX_LINE_BYTES >> 20} MB on its wire"
            self._why_ended = self._why_ended or ProtocolViolation(self.program.label, what)
        finally:
            self.ended.set()
            with anyio.CancelScope(shield=True):
                await self.kill()
                with anyio.move_on_after(0.5):  # its last words may still be on their way
                    await self._log_ended.wait()
                for waiting in list(self._pending.values()):
                    waiting.close()

    async def serve_log(self) -> None:
        """Pass on what the process prints: to its log file, or to the hub's log."""
        assert self._process.stderr is not None, "started with pipes"
        file = _open_log(self.program.log_file)
        left = b""
        try:
            async for data in self._process.stderr:
                if file is not None:
                    file.write(data)
                    file.flush()
                *lines, left = (left + data).split(b"\n")
                left = left[-10_000:]
                for line in lines:
                    self._print(line, to_log=file is None)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass
        finally:
            self._print(left, to_log=file is None)
            self._log_ended.set()
            if file is not None:
                file.close()

    async def stop(self) -> None:
        """End the process because it is not needed any more, and let go of its pipes."""
        with anyio.CancelScope(shield=True):
            await self.kill(RemoteUnavailable(self.program.label, "it was stopped"))
            await self._process.aclose()

    def _print(self, line: bytes, *, to_log: bool) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self._said.append(text[:500])
            if to_log:
                _log.debug("worker_output", agent=self.program.label, line=text[:2000])

    async def _take(self, frame: JsonObject) -> None:
        if frame.get("method") == "StreamResponse":
            params = cast("JsonObject", frame.get("params") or {})
            waiting = self._pending.get(cast("int", params.get("id")))
        elif "method" in frame:
            error: JsonObject = {"code": -32601, "message": f"the hub lends no tools: {frame.get('method')}"}
            await self._write({"jsonrpc": "2.0", "id": frame.get("id"), "error": error})
            return
        else:
            waiting = self._pending.get(cast("int", frame.get("id")))
        if waiting is not None:
            waiting.send_nowait(frame)

    async def _write(self, frame: Mapping[str, Json]) -> None:
        assert self._process.stdin is not None, "started with pipes"
        data = json.dumps(frame, separators=(",", ":")).encode() + b"\n"
        async with self._write_lock:
            with anyio.CancelScope(shield=True):  # half a frame would spoil the wire for every other call
                try:
                    await self._process.stdin.send(data)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError) as error:
                    raise self._gone() from error

    def _result(self, frame: JsonObject) -> JsonObject:
        error = frame.get("error")
        if isinstance(error, Mapping):
            code, message = error.get("code"), str(error.get("message"))
            if code == LOAD_FAILED:
                raise BadEndpoint(self.program.target, f"it cannot be used: {message}", self._see_log())
            raise ProtocolViolation(self.program.label, f"its shim failed: {message}")
        result = frame.get("result")
        if not isinstance(result, Mapping):
            raise ProtocolViolation(self.program.label, "an answer on its wire has no result")
        return result

    def _gone(self) -> AdapterError:
        if self._why_ended is not None:
            why = self._why_ended
            return copy.copy(why) if isinstance(why, RemoteUnavailable) else why
        return ConnectionLost(self.program.label, self.last_words())

    def last_words(self) -> str:
        """Say how the process ended and the last that it printed."""
        code = self._process.returncode
        how = "its process ended" if code is None else f"its process ended with {_exit(code)}"
        words = next((line for line in reversed(self._said) if re.search(r"\w", line)), "")
        return f"{how}" + (f"; its last words: {words}" if words else "")

    def _see_log(self) -> str:
        return f"see {self.program.log_file}" if self.program.log_file else "see the hub's log"

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


async def start_worker(program: Program, tasks: anyio.abc.TaskGroup) -> WorkerProcess:
    """Start a process and wait until its agent is imported. Its readers run in `tasks`; end it with `stop`.

    Raises:
        BadEndpoint: the interpreter cannot be started, or the agent's module cannot be imported or is no agent.
        ProtocolViolation: it prints garbage on its wire.
        RemoteUnavailable: it ended at once, or was not ready within `start_timeout_s`.
    """
    _make_folders(program)
    process: anyio.abc.Process | None = None
    try:
        with anyio.CancelScope(shield=True):  # cancelled meanwhile, it would leave a process that nobody waits for
            process = await anyio.open_process(program.argv, env=program.env, cwd=program.cwd, start_new_session=True)
    except OSError as error:
        raise BadEndpoint(program.argv[0], f"it cannot be started: {error.strerror or error}") from error
    assert process is not None, "a shield ends nothing early"
    guardian().watch(process.pid)
    worker = WorkerProcess(program, process)
    try:
        tasks.start_soon(worker.serve_wire, name=f"wire of {program.label}")
        tasks.start_soon(worker.serve_log, name=f"log of {program.label}")
        await _initialize(worker)
    except BaseException:
        await worker.stop()
        raise
    return worker


async def _initialize(worker: WorkerProcess) -> None:
    program = worker.program
    with anyio.move_on_after(program.start_timeout_s):
        try:
            said = await worker.request(
                "initialize", {"target": program.target, "state_dir": str(program.state_dir), "protocolVersion": "1"}
            )
        except ConnectionLost as error:
            raise RemoteUnavailable(program.label, f"it did not start: {error.why}") from error
        worker.card = cast("JsonObject", said.get("agentCard") or {})
        worker.concurrent = said.get("concurrent") is True
        worker.stateful = said.get("stateful") is True
        return
    raise RemoteUnavailable(program.label, f"it was not ready within {program.start_timeout_s:g} s")


def _make_folders(program: Program) -> None:
    folders = [program.state_dir, *([program.log_file.parent] if program.log_file else [])]
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BadEndpoint(str(folder), f"it cannot be made: {error.strerror}") from error
    if not program.cwd.is_dir():
        raise BadEndpoint(str(program.cwd), "the working directory is not there")


def _open_log(path: Path | None) -> IO[bytes] | None:
    if path is None:
        return None
    try:
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
    except OSError as error:
        _log.warning("worker_log_unwritable", path=str(path), why=str(error))
        return None


def _exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
