"""`interhub workers`: the environments in which agents of the frameworks run."""

from typing import TYPE_CHECKING, Annotated

import typer

from .session import session

if TYPE_CHECKING:
    from interhub.adapters.worker import Environment

app = typer.Typer(help="Environments of the agent frameworks. They work without a running hub.", no_args_is_help=True)


@app.command()
def sync(
    context: typer.Context,
    frameworks: Annotated[
        list[str] | None, typer.Argument(help="langgraph, crewai, ...; all of them without.", show_default=False)
    ] = None,
) -> None:
    """Build the environments that are not there yet, from hash-locked requirements."""
    import anyio

    from interhub.adapters.worker import FRAMEWORKS, Environments

    here = session(context)
    here.home().prepare()
    environments = Environments(here.settings().worker_environments)

    async def say(line: str) -> None:
        here.note(line)

    async def build() -> "list[Environment]":
        return await environments.sync(tuple(frameworks or FRAMEWORKS), say)

    built = anyio.run(build)

    def show(console: object) -> None:
        for each in built:
            typer.echo(f"{each.framework} is ready in {each.path}")

    here.give({"environments": [_shape(each) for each in built]}, show)


@app.command("list")
def list_environments(context: typer.Context) -> None:
    """List the frameworks, and which have their environment."""
    from interhub.adapters.worker import FRAMEWORKS, Environments

    here = session(context)
    built = Environments(here.settings().worker_environments).list()
    missing = [name for name in FRAMEWORKS if name not in {each.framework for each in built}]

    def show(console: object) -> None:
        for each in built:
            typer.echo(f"{each.framework:<12} built  {each.path}")
        for name in missing:
            typer.echo(f"{name:<12} not built; the first agent of it builds it, or: interhub workers sync {name}")

    here.give({"environments": [_shape(each) for each in built], "missing": missing}, show)


def _shape(environment: "Environment") -> dict[str, object]:
    return {
        "framework": environment.framework,
        "path": str(environment.path),
        "python": str(environment.python),
        "interpreter": environment.interpreter,
        "requirements": environment.requirements,
        "digest": environment.digest,
        "current": environment.current,
    }
