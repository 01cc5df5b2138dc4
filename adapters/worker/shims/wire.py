"""The worker's side of the wire: JSON-RPC 2.0, one JSON text to a line, with A2A's method names and shapes.

From the hub:

* `initialize` `{target, state_dir, framework}` imports the agent; answers `{agentCard, concurrent, stateful}`.
* `SendStreamingMessage` `{message, resume?, metadata?}` runs it; `message.messageId` is the idempotency key and the
  task's id. While it lasts, notifications `StreamResponse` `{id, statusUpdate | artifactUpdate | log}` follow; the
  answer is `{task}`, an A2A Task whose metadata holds `usage`, `structured`, and for TASK_STATE_INPUT_REQUIRED the
  answer's `schema` and the `state` to send back in `resume` `{parts, state, accepted}` with the same message.
* `CancelTask` `{id}` stops a task; answers `{task, clean}`, where `clean` false says that something runs on that only
  the process's end can stop.

To the hub: `tools/call` `{taskId, name, arguments}`, for tools that the hub lends.

A finished task is remembered by its key for the life of the process: the same message again is answered from memory.
"""

import asyncio
import dataclasses
import inspect
import itertools
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, cast

from .target import Unusable, place_of
from .task import Refused, Task, ToolError, Usage, agent_message, current_task, object_of, plain, text_parts, words

REMEMBERED = 1000
"""Finished tasks kept for those who ask again."""
LOAD_FAILED = -32001
"""The agent's module could not be imported, or is not what it should be."""
METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603


class _RequestError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class Agent(Protocol):
    """What a shim makes of the target."""

    concurrent: bool
    """Whether many tasks may run at once in this process."""
    stateful: bool
    """Whether tasks of one context must not run at once."""

    def card(self) -> dict[str, Any]:
        """Return an A2A agent card with one skill, which has `inputSchema` and `outputSchema` besides A2A's fields."""
        ...

    async def run(self, task: Task) -> dict[str, Any]:
        """Carry out a task; return what `completed` or `input_required` made. Any exception is the task's failure."""
        ...

    def leftover(self, task: Task) -> bool:
        """Return whether something of a cancelled task runs on."""
        ...


class Wire:
    """Reads requests, runs tasks, writes answers."""

    def __init__(self, wire_in: int, wire_out: int, load: "Callable[[dict[str, Any]], Any]") -> None:
        self._in = wire_in
        self._out = wire_out
        self._load = load
        self._agent: Agent | None = None
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Task, asyncio.Task[dict[str, Any]]]] = {}
        self._finished: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._asked: dict[str, Future[Any]] = {}
        self._ids = itertools.count(1)
        self._background: set[asyncio.Task[None]] = set()

    def send(self, frame: Mapping[str, Any]) -> None:
        """Write one frame whole."""
        data = json.dumps(frame, default=plain, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[os.write(self._out, view) :]

    def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """Ask the hub and wait for the answer, off the event loop."""
        request_id = f"w{next(self._ids)}"
        future: Future[Any] = Future()
        self._asked[request_id] = future
        self.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        return future.result()

    def serve(self) -> None:
        """Serve until the hub closes the wire; then end this process and all it started."""
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.set_default_executor(_Tracking(max_workers=64, thread_name_prefix="work"))
        threading.Thread(target=self._read, args=(loop,), daemon=True, name="wire").start()
        while True:
            try:
                loop.run_forever()
            except SystemExit:
                # asyncio lets it out of the loop besides handing it to who awaits, who makes it a task's failure.
                continue

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        with os.fdopen(self._in, "rb") as lines:
            for line in lines:
                try:
                    frame = json.loads(line)
                except ValueError:
                    print(f"interhub: not JSON on the wire: {line[:200]!r}", file=sys.stderr)
                    continue
                loop.call_soon_threadsafe(self._take, frame)
        os.killpg(0, signal.SIGKILL)

    def _take(self, frame: dict[str, Any]) -> None:
        if "method" in frame:
            task = asyncio.get_running_loop().create_task(self._answer(frame))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
            return
        future = self._asked.pop(str(frame.get("id")), None)
        if future is None:
            return
        if "error" in frame:
            future.set_exception(ToolError(str(frame["error"].get("message", "failed"))))
        else:
            future.set_result(frame.get("result"))

    async def _answer(self, frame: dict[str, Any]) -> None:
        method, params, request_id = frame["method"], object_of(frame.get("params")), frame.get("id")
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id}
        try:
            if method == "initialize":
                answer["result"] = await self._initialize(params)
            elif method == "SendStreamingMessage":
                answer["result"] = {"task": await self._send_message(request_id, params)}
            elif method == "CancelTask":
                answer["result"] = await self._cancel(str(params.get("id")))
            else:
                answer["error"] = {"code": METHOD_NOT_FOUND, "message": f"no method {method}"}
        except _RequestError as error:
            answer["error"] = {"code": error.code, "message": error.message}
        except Exception as error:  # the wire's edge: whatever happened, the hub gets an answer
            traceback.print_exc()
            answer["error"] = {"code": INTERNAL_ERROR, "message": words(error)}
        if request_id is not None:
            self.send(answer)

    async def _initialize(self, params: dict[str, Any]) -> dict[str, Any]:
        try:
            made = self._load(params)
            agent = cast("Agent", await made if inspect.isawaitable(made) else made)
            result = {"agentCard": agent.card(), "concurrent": agent.concurrent, "stateful": agent.stateful}
        except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported
            traceback.print_exc()
            place = place_of(error, str(params.get("target", "")))
            why = str(error) if isinstance(error, Unusable) else f"{words(error)}{place}"
            raise _RequestError(LOAD_FAILED, why) from error
        self._agent = agent
        return result

    async def _send_message(self, request_id: Any, params: dict[str, Any]) -> dict[str, Any]:
        assert self._agent is not None, "initialize comes first"
        task = Task(self, request_id, params)
        memory = task.key + json.dumps(params.get("resume"), sort_keys=True)
        if memory in self._finished:
            return self._finished[memory]
        running = self._running.get(memory)
        if running is None:
            work = asyncio.get_running_loop().create_task(self._run(self._agent, task))
            self._running[memory] = running = (task, work)
        task, work = running
        try:
            result = await asyncio.shield(work)
        except asyncio.CancelledError:
            if not work.cancelled():
                raise
            return {**_task(task, "TASK_STATE_CANCELED"), "metadata": {}}
        finally:
            if work.done():
                self._running.pop(memory, None)
        if result["status"]["state"] in ("TASK_STATE_COMPLETED", "TASK_STATE_INPUT_REQUIRED"):
            self._finished[memory] = result
            while len(self._finished) > REMEMBERED:
                self._finished.popitem(last=False)
        return result

    async def _run(self, agent: Agent, task: Task) -> dict[str, Any]:
        current_task.set(task)
        began = time.perf_counter()
        try:
            ended = await agent.run(task)
        except Refused as error:
            ended = _failed(str(error), "Refused")
        except (Exception, SystemExit) as error:  # an agent's exception is its task's failure
            traceback.print_exc()
            ended = _failed(words(error), type(error).__name__)
        result = {**_task(task, ended["state"], ended["parts"]), "metadata": dict(ended["metadata"])}
        result["metadata"]["seconds"] = round(time.perf_counter() - began, 3)
        if task.usage != Usage():
            result["metadata"]["usage"] = dataclasses.asdict(task.usage)
        return result

    async def _cancel(self, key: str) -> dict[str, Any]:
        assert self._agent is not None, "initialize comes first"
        found = [(task, work) for task, work in self._running.values() if task.key == key]
        for _, work in found:
            work.cancel()
        if found:
            await asyncio.wait([work for _, work in found])
        clean = not any(self._agent.leftover(task) for task, _ in found)
        return {"task": {"id": key, "status": {"state": "TASK_STATE_CANCELED"}}, "clean": clean}


class _Tracking(ThreadPoolExecutor):
    """Remembers which task handed work to a thread: a cancelled coroutine does not stop it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future = super().submit(fn, *args, **kwargs)
        task = current_task.get()
        if task is not None:
            task.outside.add(future)
            future.add_done_callback(task.outside.discard)
        return future


def _failed(why: str, kind: str) -> dict[str, Any]:
    return {"state": "TASK_STATE_FAILED", "parts": text_parts(why), "metadata": {"type": kind}}


def _task(task: Task, state: str, parts: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    status: dict[str, Any] = {"state": state}
    if parts is not None:
        status["message"] = agent_message(parts)
    return {"id": task.key, "contextId": task.context_id, "status": status}
