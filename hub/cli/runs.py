"""`interhub run` and `interhub runs`: what was asked for, how it goes, what it asks, how it ended."""

import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from interhub.hub.exits import Exit

from .session import Session, session

if TYPE_CHECKING:
    from rich.console import Console

    from interhub.hub.client import HubClient

app = typer.Typer(help="Runs: goals that were given, and how they go.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(help="The run's id; its beginning is enough where no other begins so.")]


def run(
    context: typer.Context,
    goal: Annotated[str, typer.Argument(help="What is wanted, in words.")] = "",
    workflow: Annotated[
        Path | None, typer.Option(help="Carry out this workflow file; it need not be registered.", show_default=False)
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input", help="NAME=VALUE for the workflow; a VALUE that is JSON counts as such. May be repeated."
        ),
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="JSON or YAML file with the workflow's inputs.", show_default=False)
    ] = None,
    agent: Annotated[str, typer.Option(help="Give it to this agent, team or registered workflow.")] = "",
    capability: Annotated[str, typer.Option(help="With --agent: use this capability of it.")] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait; say the run's id.")] = False,
) -> None:
    """Have a goal or a workflow carried out, and watch. Ctrl-C leaves it running."""
    from interhub.hub.client import ApiProblem
    from interhub.hub.errors import BadRequest

    from .documents import located, read_file
    from .watch import follow

    here = session(context)
    if workflow is not None and agent:
        raise BadRequest("--workflow and --agent both say who does it", "give one of them")
    if not goal and workflow is None and not agent:
        raise BadRequest("nothing is wanted yet", "give a goal in words, --workflow FILE or --agent ID")
    body: dict[str, Any] = {"goal": goal, "agent_id": agent, "capability": capability}
    document = read_file(workflow) if workflow is not None else None
    if document is not None:
        body["workflow"] = document.value
    values = _inputs(inputs, input_ or [])
    if document is not None:
        body["inputs"] = values
    elif capability:
        body["arguments"] = values
    elif values:
        body["inputs"] = values
    hub = here.hub()
    try:
        started = hub.post("/api/runs", body)
    except ApiProblem as problem:
        raise located(problem, document) from problem
    if detach:
        here.give(started, lambda console: console.print(started["id"]))
        return
    follow(here, hub, started, stop_when_asked=True)


@app.command("list")
def list_runs(
    context: typer.Context,
    state: Annotated[str, typer.Option(help="Only those in this state: working, completed, failed, ...")] = "",
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most runs.")] = 20,
) -> None:
    """List your runs, newest first."""
    here = session(context)
    found: dict[str, Any] = here.hub().get("/api/runs", {"state": state, "limit": limit})

    def show(console: "Console") -> None:
        from rich.markup import escape
        from rich.table import Table

        from .watch import goal_text, state_text, took

        if not found["runs"]:
            console.print("No runs yet. Begin one: interhub run GOAL")
            return
        table = Table(box=None, pad_edge=False)
        for column in ("RUN", "STATE", "BEGAN (UTC)", "TOOK", "GOAL"):
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        for each in found["runs"]:
            began = each["created_at"][:19].replace("T", " ")
            table.add_row(each["id"], state_text(each["state"]), began, took(each), escape(goal_text(each)))
        console.print(table)

    here.give(found, show)


@app.command("show")
def show_run(context: typer.Context, run_id: RunId) -> None:
    """Show a run: who did what, what it asks, and its answer."""
    from .watch import show_run

    here = session(context)
    hub = here.hub()
    found = hub.get(_path(hub, run_id))
    here.give(found, lambda console: show_run(console, found))


@app.command()
def watch(context: typer.Context, run_id: RunId) -> None:
    """Watch a run until it has ended, and answer what it asks. Ctrl-C leaves it running."""
    from .watch import follow

    here = session(context)
    hub = here.hub()
    follow(here, hub, hub.get(_path(hub, run_id)), stop_when_asked=False)


@app.command()
def cancel(context: typer.Context, run_id: RunId) -> None:
    """Stop a run, down to the last agent that works for it."""
    here = session(context)
    hub = here.hub()
    found = hub.post(f"{_path(hub, run_id)}/cancel")
    here.give(found, lambda console: console.print(f"Run {found['id']} is {found['state']}."))


@app.command()
def pause(context: typer.Context, run_id: RunId) -> None:
    """Have a run begin no further step until it is resumed; what is under way ends."""
    here = session(context)
    hub = here.hub()
    found = hub.post(f"{_path(hub, run_id)}/pause")
    here.give(found, lambda console: console.print(f"Run {found['id']} is paused."))


@app.command()
def resume(context: typer.Context, run_id: RunId) -> None:
    """Let a paused run go on."""
    here = session(context)
    hub = here.hub()
    found = hub.post(f"{_path(hub, run_id)}/resume")
    here.give(found, lambda console: console.print(f"Run {found['id']} goes on."))


@app.command()
def rerun(
    context: typer.Context,
    run_id: RunId,
    from_step: Annotated[str, typer.Option("--from", help="Id or path of the first step that is done again.")],
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait; say the new run's id.")] = False,
) -> None:
    """Do a run again from a step on, and watch: a new run, with the results of the steps that come before."""
    from .watch import follow

    here = session(context)
    hub = here.hub()
    begun = hub.post(f"{_path(hub, run_id)}/rerun", {"from_step": from_step})
    if detach:
        here.give(begun, lambda console: console.print(begun["id"]))
        return
    follow(here, hub, begun, stop_when_asked=True)


@app.command()
def answer(
    context: typer.Context,
    run_id: RunId,
    text: Annotated[str, typer.Argument(help="The answer in words; without it you are asked.")] = "",
    data: Annotated[str, typer.Option(help="The answer as a JSON object, where a form is asked for.")] = "",
    question: Annotated[str, typer.Option(help="Id of the question, where a run asks several things.")] = "",
    decline: Annotated[bool, typer.Option("--decline", help="Decline to answer.")] = False,
) -> None:
    """Answer what a run asks."""
    from interhub.hub.errors import BadRequest

    from .documents import json_object
    from .watch import ask

    here = session(context)
    hub = here.hub()
    path = _path(hub, run_id)
    body: dict[str, Any] = {"question_id": question, "accepted": not decline}
    if data:
        body["data"] = json_object(data, "--data")
    if text:
        body["text"] = text
    if not (text or data or decline):
        open_now = [each for each in hub.get(path)["questions"] if question in ("", each["id"])]
        if not open_now:
            raise BadRequest(f"run {run_id} asks nothing" + (f" under {question!r}" if question else ""))
        if not here.interactive:
            raise BadRequest("no answer was given", "give it in words, with --data or with --decline")
        body = ask(open_now[0])
    found = hub.post(f"{path}/answer", body)
    here.give(found, lambda console: console.print(f"Answered; run {found['id']} is {found['state']}."))


def end_of(here: Session, found: dict[str, Any]) -> None:
    """End the command as the run ended."""
    match found["state"]:
        case "completed":
            return
        case "input_required" | "auth_required":
            here.end(Exit.WAITING)
        case _:
            here.end(Exit.FAILED)


def _path(hub: "HubClient", run_id: str) -> str:
    """Return the path of a run, found by its id or by the beginning of one."""
    if len(run_id) < 32:
        known = [each["id"] for each in hub.get("/api/runs", {"limit": 200})["runs"]]
        matching = [each for each in known if each.startswith(run_id)]
        if len(matching) == 1:
            run_id = matching[0]
    return f"/api/runs/{quote(run_id, safe='')}"


def _inputs(file: Path | None, given: list[str]) -> dict[str, Any]:
    from interhub.hub.errors import BadRequest

    from .documents import read_file

    values: dict[str, Any] = dict(read_file(file).value) if file is not None else {}
    for each in given:
        name, found, value = each.partition("=")
        if not found or not name:
            raise BadRequest(f"--input {each!r} is not NAME=VALUE")
        try:
            values[name] = jsons.loads(value)
        except ValueError:
            values[name] = value
    return values
