"""`interhub workflows`: files that declare workflows and teams."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .runs import run
from .session import session

app = typer.Typer(help="Workflow and team files.", no_args_is_help=True)


@app.command()
def check(
    context: typer.Context, file: Annotated[Path, typer.Argument(help="A workflow or team, as YAML, JSON or TOML.")]
) -> None:
    """Name every mistake in a workflow or team file, with its line; nothing is registered or run."""
    from interhub.hub.client import ApiProblem
    from interhub.hub.errors import HubNotRunning

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
        from interhub.hub.supervisor.plan_check import check_plan

        if document.value.get("kind") == "team":
            raise
        try:
            check_plan(document.value, source=str(file))
        except PlanInvalid as invalid:
            raise document.locate(invalid) from invalid
        here.note("No hub is running, so the agents it names were not looked up.")
        checked = {"ok": True, "agent": None}
    here.give(checked, lambda console: typer.echo(f"{file}: no mistakes."))


class Format(StrEnum):
    """How a workflow is drawn."""

    TREE = "tree"
    MERMAID = "mermaid"


@app.command()
def show(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A workflow, as YAML, JSON or TOML.")],
    format_: Annotated[
        Format, typer.Option("--format", help="A tree for the terminal, or a Mermaid graph.")
    ] = Format.TREE,
) -> None:
    """Draw a workflow: its steps, what each does, and what is within it. No hub is needed."""
    from interhub.hub.errors import PlanInvalid
    from interhub.hub.supervisor.drawing import mermaid, tree
    from interhub.hub.supervisor.plan_check import check_plan

    from .documents import read_file

    here = session(context)
    document = read_file(file)
    try:
        plan = check_plan(document.value, source=str(file))
    except PlanInvalid as invalid:
        raise document.locate(invalid) from invalid
    drawn = mermaid(plan) if format_ is Format.MERMAID else tree(plan)
    here.give({"format": format_.value, "drawing": drawn, "plan": plan.dump()}, lambda console: typer.echo(drawn))


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
