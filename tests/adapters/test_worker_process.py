"""Worker processes that misbehave, and the ends that they come to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from interhub.adapters import (
    BadEndpoint,
    Call,
    Completed,
    ConnectionLost,
    Outcome,
    Principal,
    ProtocolViolation,
    RemoteCanceled,
    RemoteUnavailable,
    ignore,
)
from interhub.adapters.backoff import Backoff
from interhub.adapters.worker.adapter import WorkerConnection
from interhub.adapters.worker.process import Program
from interhub.adapters.worker.processes import Processes
from tests.support.workers import AGENTS, ROOT, runs

pytestmark = pytest.mark.anyio


def program(mode: str, folder: Path, *, python: str = sys.executable, start_timeout_s: float = 20) -> Program:
    return Program(
        argv=(python, str(AGENTS / "bare_worker.py"), mode),
        env={"PATH": os.defpath},
        cwd=folder,
        target="bare",
        state_dir=folder / "state",
        label="bare",
        log_file=folder / "bare.log",
        start_timeout_s=start_timeout_s,
        cancel_grace_s=0.1,
    )


@pytest.mark.parametrize(
    ("mode", "error", "why"),
    [
        (
            "exit",
            RemoteUnavailable,
            "ended with exit code 3; its last words: cannot find my head",
        ),
        ("garbage", ProtocolViolation, "lines on its wire that are no JSON-RPC, such as b'loading shard"),
        ("silent", RemoteUnavailable, r"not ready within 0\.5 s"),
    ],
)
async def test_a_worker_that_does_not_get_ready_says_why(
    mode: str, error: type[Exception], why: str, tmp_path: Path
) -> None:
    timeout_s = 0.5 if mode == "silent" else 20
    async with Processes(program(mode, tmp_path, start_timeout_s=timeout_s)) as processes:
        with anyio.fail_after(20), pytest.raises(error, match=why):
            await processes.open()


async def test_an_interpreter_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    async with Processes(program("fine", tmp_path, python="/no/such/python")) as processes:
        with pytest.raises(BadEndpoint, match="/no/such/python: it cannot be started"):
            await processes.open()


@pytest.mark.parametrize("mode", ["odd", "odder"])
async def test_frames_that_are_no_json_rpc_end_the_process_and_nothing_else(mode: str, tmp_path: Path) -> None:
    async with Processes(program(mode, tmp_path)) as processes:
        worker = await processes.open()
        with anyio.fail_after(10), pytest.raises(ProtocolViolation, match="it sent no JSON-RPC"):
            async with processes.use("k"):
                await worker.request("SendStreamingMessage", {})
        assert (tmp_path / "bare.log").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


async def test_a_stray_line_on_the_wire_is_survived(tmp_path: Path) -> None:
    async with Processes(program("chatty", tmp_path)) as processes:
        worker = await processes.open()
        assert worker.card == {"name": "bare"}


async def test_a_crash_in_a_call_is_a_lost_connection_and_the_next_call_gets_a_new_process(tmp_path: Path) -> None:
    now = 100.0
    made = Processes(
        program("crash", tmp_path), backoff=Backoff(first_s=8, cap_s=60, chance=lambda: 1.0), clock=lambda: now
    )
    async with made as processes:
        worker = await processes.open()
        with pytest.raises(ConnectionLost, match="ended with exit code 7; its last words: going down"):
            async with processes.use("k"):
                await worker.request("SendStreamingMessage", {})
        await worker.ended.wait()
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RemoteUnavailable, match=r"\(1 times in a row; next started in 8\.0 s\)"):
            async with processes.use("k"):
                pass
        now += 8
        async with processes.use("k") as other:
            assert other.pid != worker.pid


async def test_calls_wait_their_turn_and_go_beyond_the_first_process_up_to_the_limit(tmp_path: Path) -> None:
    async with Processes(program("fine", tmp_path), most=2) as processes:
        await processes.open()
        async with processes.use("a") as first, processes.use("b") as second:
            assert first is not second
            with anyio.move_on_after(0.05) as waited:
                async with processes.use("c"):
                    pass
            assert waited.cancelled_caught
        async with processes.use("b") as again:
            assert again is second


async def test_a_process_beyond_the_warm_ones_ends_when_it_is_not_needed(tmp_path: Path) -> None:
    async with Processes(program("fine", tmp_path), most=2, idle_s=0.05) as processes:
        first = await processes.open()
        async with processes.use("a"), processes.use("b") as second:
            pass
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:

                async def wait(ended: anyio.Event) -> None:
                    await ended.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(wait, first.ended)
                tasks.start_soon(wait, second.ended)
        async with processes.use("a") as left:
            assert left in (first, second)


async def test_a_cancelled_call_that_does_not_stop_ends_its_process(tmp_path: Path) -> None:
    async with Processes(program("stuck", tmp_path)) as processes:
        worker = await processes.open()
        os.kill(worker.pid, signal.SIGSTOP)
        with anyio.fail_after(2):
            await worker.cancel("k")
        assert not runs(worker.pid)
        async with processes.use("k") as other:
            assert other.pid != worker.pid


async def shared(folder: Path, keys: tuple[str, str]) -> Outcome:
    """Cancel the call of the first key, which does not stop; returns how the other one in its process ended."""
    async with Processes(program("shared", folder), most=1) as processes:
        worker = await processes.open()
        connection = WorkerConnection(processes, "bare")
        outcomes: list[Outcome] = []

        async def use(key: str, scope: anyio.CancelScope) -> None:
            call = Call(capability="run", principal=Principal(subject="ann"), idempotency_key=key)
            with scope:
                outcomes.append(await connection.call(call, ignore))

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                first = anyio.CancelScope()
                tasks.start_soon(use, keys[0], first)
                tasks.start_soon(use, keys[1], anyio.CancelScope())
                while worker.busy < 2:  # noqa: ASYNC110 -- it says nothing when it is given a call
                    await anyio.sleep(0.01)
                first.cancel()
        assert not runs(worker.pid)
        (outcome,) = outcomes
        return outcome


async def test_a_call_beside_a_cancelled_one_that_does_not_stop_is_made_again(tmp_path: Path) -> None:
    assert isinstance(await shared(tmp_path, ("cancelled", "other")), Completed)


async def test_another_call_of_the_cancelled_key_is_cancelled_too(tmp_path: Path) -> None:
    with pytest.RaisesGroup(RemoteCanceled):
        await shared(tmp_path, ("cancelled", "cancelled"))


async def test_leaving_ends_every_process(tmp_path: Path) -> None:
    async with Processes(program("fine", tmp_path), most=2, warm=2) as processes:
        await processes.open()
        async with processes.use("a") as first, processes.use("b") as second:
            pids = [first.pid, second.pid]
    assert not any(map(runs, pids))


HUB = """
import sys, anyio, pathlib
from tests.support.workers import AGENTS, worker_adapter, worker_endpoint

async def main():
    adapter = worker_adapter(pathlib.Path(sys.argv[1]))
    endpoint = worker_endpoint("langgraph", AGENTS / "langgraph_more.py:spawning", {"PIDS": sys.argv[2]})
    async with adapter.connect(endpoint, card=None, label="spawning"):
        print("ready", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


async def test_a_worker_and_what_it_started_die_with_a_killed_hub(tmp_path: Path) -> None:
    hub = subprocess.Popen(  # noqa: ASYNC220 -- it must not be ended for us
        [sys.executable, "-c", HUB, str(tmp_path), str(tmp_path / "pids")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert hub.stdout is not None
        line = await anyio.to_thread.run_sync(hub.stdout.readline)
        assert line == b"ready\n"
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert all(map(runs, pids))
        hub.kill()
        with anyio.fail_after(5):
            while any(map(runs, pids)):  # noqa: ASYNC110 -- another process's end can only be asked for
                await anyio.sleep(0.02)
    finally:
        hub.kill()
        hub.wait()
        assert hub.stdout is not None
        hub.stdout.close()
