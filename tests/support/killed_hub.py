"""The program that the kill test kills: a supervisor over agents that write what they do to a log that survives it.

`python -m tests.support.killed_hub DIRECTORY` begins the run, or takes it up, and says on its output what its agents do
as they do it. With `--answer` it answers what the run asks. It ends when the run has ended; with `--kill KIND STEP` it
kills itself when it has said the first such line, about that step where one is named: from outside it could not be
known what else it had come to by then.
"""

import json
import os
import signal
import sys
from pathlib import Path

import anyio

from interhub.adapters import Call, Outcome, Progress, RemoteUnavailable, Report, TaskBound, TextPart
from interhub.adapters.testing import ScriptedAgent, answer, question
from interhub.agent_cards import Json
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.run import Answer
from tests.support.supervised import ALICE, supervised

TEAMS = (
    "{kind: team, name: pair, members: [worker, flaky], workflow: {steps: [{parallel: ["
    "{id: p1, call: {agent: worker, message: '{{ goal }}'}}, "
    "{id: p2, call: {agent: flaky, message: x, retry: {attempts: 3, backoff_s: 0.01}}}]}]}}",
    "{kind: team, name: crew, members: [pair, worker], workflow: {steps: ["
    "{id: c1, call: {agent: worker, message: x}}, {id: c2, call: {agent: pair, message: deep}}, "
    "{id: c3, call: {agent: worker, message: '{{ steps.c2.text }}'}}]}}",
)
PLAN = """
name: everything
steps:
  - {id: s1, call: {agent: worker, message: x}}
  - {id: s2, call: {agent: worker, message: "{{ steps.s1.text }}"}}
  - {id: s3, call: {need: carry out the work, message: carry out the work}}
  - id: fan
    parallel:
      - {id: f1, call: {agent: worker, message: x}}
      - {id: f2, call: {agent: worker, message: x}}
      - {id: f3, call: {agent: flaky, message: x, retry: {attempts: 3, backoff_s: 0.01}}}
      - {id: f4, call: {agent: worker, message: x}}
      - {id: f5, sequence: [{id: f6, call: {agent: worker, message: x}}, {id: f7, call: {agent: worker, message: x}}]}
      - id: f8
        plan:
          inputs: {word: "{{ steps.s2.text }}"}
          workflow:
            inputs: {word: string}
            steps:
              - {id: i1, call: {agent: worker, message: "{{ inputs.word }}"}}
              - {id: i2, call: {agent: worker, message: x}}
  - {id: keep, call: {agent: keeper, message: x}}
  - id: teams
    parallel:
      - {id: t1, call: {agent: crew, message: x}}
      - {id: t2, call: {agent: pair, message: x}}
  - {id: ask, call: {agent: asker, message: x}}
  - {id: e1, call: {agent: worker, message: "{{ steps.ask.text }}"}}
  - {id: e2, call: {agent: worker, message: x}}
output: "{{ steps.ask.text }}, {{ steps.fan.text.splitlines()|length }} at once, {{ steps.teams.text }}"
"""


class Log:
    """An append-only file, on the disk before anybody is told; the same lines on standard output."""

    def __init__(self, path: Path, kill: tuple[str, str] | None) -> None:
        self._path = path
        self._kill = kill

    def write(self, kind: str, **fields: Json) -> None:
        line = json.dumps({"pid": os.getpid(), "kind": kind, **fields}) + "\n"
        file = os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        try:
            os.write(file, line.encode())
            os.fsync(file)
        finally:
            os.close(file)
        sys.stdout.write(line)
        sys.stdout.flush()
        step = str(fields.get("key", "")).partition("/")[2]
        if self._kill is not None and (kind, step if self._kill[1] else "") == self._kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def lines(self) -> list[dict[str, Json]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.exists() else []


def agents(log: Log) -> list[ScriptedAgent]:
    """Agents whose work shows in the log."""
    tried: set[str] = set()

    async def work(call: Call, report: Report) -> Outcome:
        log.write("start", key=call.idempotency_key)
        await report(Progress(text="working"))
        log.write("done", key=call.idempotency_key)
        return answer("worked", structured={"key": call.idempotency_key})

    async def fail_first(call: Call, report: Report) -> Outcome:
        if call.idempotency_key not in tried:
            tried.add(call.idempotency_key)
            raise RemoteUnavailable("flaky", "it stumbles first")
        return await work(call, report)

    async def keep(call: Call, report: Report) -> Outcome:
        if call.remote_task:
            log.write("reattached", key=call.idempotency_key, task=call.remote_task)
            return answer("kept")
        log.write("start", key=call.idempotency_key)
        await report(TaskBound(remote_task="task-of-keeper"))
        log.write("bound", key=call.idempotency_key)
        await anyio.sleep_forever()
        raise AssertionError("it waits to be killed")

    async def ask(call: Call, report: Report) -> Outcome:
        if call.resume is None:
            log.write("start", key=call.idempotency_key)
            log.write("done", key=call.idempotency_key)
            return question("Go on?", state={"memory": 1})
        return await work(call, report)

    return [
        ScriptedAgent("worker").on("work", work, description="carry out the work"),
        ScriptedAgent("flaky").on("stumble", fail_first, description="stumble"),
        ScriptedAgent("keeper").on("keep", keep, description="keep tasks"),
        ScriptedAgent("asker").on("ask", ask, description="ask questions"),
    ]


async def main(directory: Path, answers: bool, kill: tuple[str, str] | None) -> None:
    log = Log(directory / "log.jsonl", kill)
    engine = DbosEngine(f"sqlite:///{directory / 'engine.db'}")
    async with supervised(directory, *agents(log), engine=engine, documents=TEAMS) as world:
        run = await world.run("everything", workflow=PLAN, key="once")
        run = await world.supervisor.wait(ALICE, run.id)
        if run.state.interrupted:
            log.write("asked", run=run.id)
            if not answers:
                await anyio.sleep_forever()
            given = Answer(parts=(TextPart(text="yes"),), by=ALICE)
            await world.supervisor.answer(ALICE, run.id, given)
            log.write("answered", run=run.id)
            run = await world.supervisor.wait(ALICE, run.id)
        log.write("ended", run=run.id, state=run.state.value, said=[str(part) for part in run.parts])


if __name__ == "__main__":
    at = sys.argv.index("--kill") if "--kill" in sys.argv else 0
    anyio.run(main, Path(sys.argv[1]), "--answer" in sys.argv, (sys.argv[at + 1], sys.argv[at + 2]) if at else None)
