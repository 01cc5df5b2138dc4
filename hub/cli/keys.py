"""`interhub key`: the API key that clients and the command line itself use."""

import typer

from .session import session

app = typer.Typer(help="The API key.", no_args_is_help=True)


@app.command()
def show(context: typer.Context) -> None:
    """Show the API key; it is made when there is none yet."""
    from interhub.hub.auth import own_key
    from interhub.hub.datadir import DataDir

    here = session(context)
    settings = here.settings()
    home = DataDir(settings.data_dir)
    if settings.auth.key is None:
        home.prepare()
    key = own_key(settings, home)
    here.give({"key": key, "file": None if settings.auth.key else str(home.key_file)}, lambda console: typer.echo(key))


@app.command()
def rotate(context: typer.Context) -> None:
    """Make another API key; a running hub takes it at once, and no longer the old one."""
    from interhub.hub.datadir import DataDir
    from interhub.hub.errors import DataDirUnusable, SettingsInvalid

    here = session(context)
    settings = here.settings()
    if settings.auth.key is not None:
        raise SettingsInvalid(["auth.key is set, so the key is changed there (INTERHUB_AUTH__KEY or interhub.toml)"])
    home = DataDir(settings.data_dir)
    home.prepare()
    try:
        home.rotate_key()
    except OSError as error:
        raise DataDirUnusable(str(home.path), (error.strerror or str(error)).lower()) from error
    here.note("The API key is another one now; give it to the clients that connect over HTTP.")
    here.give({"key": home.key(), "file": str(home.key_file)}, lambda console: typer.echo(home.key()))
