"""`interhub workflows`: files that declare workflows and teams."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import quote

import typer

from .runs import run
from .session import Session, session

app = typer.Typer(help="Workflow and team files.", no_args_is_help=True)

_ID = re.compile(r"[a-z0-9-]+")
"""What an agent's id looks like: a file has at least a dot in its name."""


@app.command()
def check(
    context: typer.Context, file: Annotated[Path, typer.Argument(help="A workflow or team, as YAML, JSON or TOML.")]
) -> None:
    """Name every mistake in a workflow or team file, with its line; nothing is registered or run."""
    from interhub.hub.client import ApiProblem
    from interhub.hub.errors import HubNotRunning
    from interhub.hub.supervisor.model import Plan
    from interhub.hub.supervisor.plan_check import check_plan, doubts

    from .documents import located, read_file

    here = session(context)
    document = read_file(file)
    try:
        hub = here.hub()
        checked = hub.post("/api/workflows/check", {"document": document.value, "source_name": str(file)})
    except ApiProblem as problem:
        raise located(problem, document) from problem
    except HubNotRunning:
        # Without a hub, all but the agents it names can be looked at.
        from interhub.hub.errors import PlanInvalid

        if document.value.get("kind") == "team":
            raise
        try:
            check_plan(document.value, source=str(file))
        except PlanInvalid as invalid:
            raise document.locate(invalid) from invalid
        here.note("No hub is running, so the agents it names were not looked up.")
        checked = {"ok": True, "agent": None}
    if document.value.get("kind") != "team" and "members" not in document.value:
        for doubt in doubts(Plan.model_validate(document.value)):
            here.note(f"{file}: {doubt}.")
    here.give(checked, lambda console: typer.echo(f"{file}: no mistakes."))


class Format(StrEnum):
    """How a workflow is drawn."""

    TREE = "tree"
    MERMAID = "mermaid"


@app.command()
def show(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(help="A workflow or team, as YAML, JSON or TOML; or the id of a registered one.")
    ],
    format_: Annotated[
        Format, typer.Option("--format", help="A tree for the terminal, or a Mermaid graph.")
    ] = Format.TREE,
) -> None:
    """Draw a workflow: its steps, what each does, and what is within it; of a team also who is in it.

    For a file no hub is needed.
    """
    from interhub.hub.errors import PlanInvalid
    from interhub.hub.supervisor.drawing import mermaid, tree
    from interhub.hub.supervisor.plan_check import check_plan

    from .documents import read_file

    here = session(context)
    if Path(file).exists() or not _ID.fullmatch(file):
        document = read_file(Path(file))
        members, planner, workflow = _parts_of(document.value)
        try:
            plan = check_plan(workflow, source=file) if workflow is not None else None
        except PlanInvalid as invalid:
            raise document.locate(invalid) from invalid
    else:
        members, planner, workflow = _registered(here, file)
        plan = check_plan(workflow, source=file) if workflow is not None else None
    drawn = "" if plan is None else mermaid(plan) if format_ is Format.MERMAID else tree(plan)
    told: dict[str, Any] = {"format": format_.value, "drawing": drawn, "plan": plan.dump() if plan else None}
    if members:
        told |= {"members": members, "planner": planner}
        if format_ is Format.TREE:
            drawn = "\n".join([f"team of {', '.join(members)}; planner: {planner}", *([drawn] if drawn else [])])
    here.give(told, lambda console: typer.echo(drawn))


def _registered(here: Session, agent_id: str) -> tuple[list[str], str, dict[str, Any] | None]:
    """Return members, planner and workflow of a registered team or workflow."""
    from interhub.hub.errors import BadRequest

    agent: dict[str, Any] = here.hub().get(f"/api/agents/{quote(agent_id, safe='')}")
    options: dict[str, Any] = agent["endpoint"]["options"]
    if agent["adapter"] not in ("team", "workflow"):
        raise BadRequest(f"agent {agent_id} is no workflow or team; it is reached by {agent['adapter']}")
    planner = "workflow" if options.get("workflow") else str(options.get("planner") or "route")
    return (
        [str(member) for member in cast("list[object]", options.get("members") or [])],
        planner,
        options.get("workflow"),
    )


def _parts_of(document: dict[str, Any]) -> tuple[list[str], str, dict[str, Any] | None]:
    """Return members, planner and workflow of a document, as it declares them."""
    if document.get("kind") != "team":
        return [], "", document
    planner: Any = document.get("planner") or "route"
    members = [str(member) for member in cast("list[object]", document.get("members") or [])]
    if not isinstance(planner, dict):
        return members, str(planner), None
    named = cast("dict[str, Any]", planner)
    workflow = named.get("workflow")
    if not isinstance(workflow, dict):
        return members, next(iter(named), "route"), None
    return members, "workflow", {"name": document.get("name", ""), **cast("dict[str, Any]", workflow)}


@app.command()
def schema(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option(help="Write it to this file.", show_default=False)] = None,
) -> None:
    """Write the JSON Schema of workflow files, by which editors complete and check them. No hub is needed."""
    import json as jsons

    from interhub.hub.errors import BadRequest
    from interhub.hub.supervisor.model import plan_schema

    written = jsons.dumps(plan_schema(), indent=2)
    if output is None:
        typer.echo(written)
        return
    try:
        output.write_text(written + "\n", encoding="utf-8")
    except OSError as error:
        raise BadRequest(f"{output} cannot be written: {(error.strerror or str(error)).lower()}") from error
    session(context).note(f"Written to {output}.")


@app.command("run")
def run_workflow(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A workflow, as YAML, JSON or TOML.")],
    goal: Annotated[str, typer.Argument(help="What is wanted, in words.")] = "",
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", help="NAME=VALUE; a VALUE that is JSON counts as such. May be repeated."),
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="JSON or YAML file with the workflow's inputs.", show_default=False)
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait; say the run's id.")] = False,
) -> None:
    """Have a workflow file carried out, and watch; it need not be registered. Ctrl-C leaves it running."""
    run(context, goal=goal, workflow=file, input_=input_, inputs=inputs, detach=detach)
