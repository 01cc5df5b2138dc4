"""`interhub workflows`: files that declare workflows and teams."""

from pathlib import Path
from typing import Annotated

import typer

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
