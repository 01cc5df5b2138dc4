"""`interhub cards`: agent cards and their signatures, and the keys that sign them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from interhub.hub.exits import Exit

from .session import session

if TYPE_CHECKING:  # only names for annotations: importing them is what a quick command avoids
    from interhub.agent_cards import AgentCard
    from interhub.agent_cards.keys import VerifyKey
    from interhub.hub.settings import Settings

    from .session import Session

app = typer.Typer(help="Agent cards: what the hub serves, and signatures.", no_args_is_help=True)


@app.command()
def show(
    context: typer.Context,
    agent: Annotated[str, typer.Argument(help="An agent's id; without it, the hub's own card.")] = "",
    dual: Annotated[bool, typer.Option("--dual", help="The card for both versions, as clients of 0.3 get it.")] = False,
) -> None:
    """Show a card as the hub serves it."""
    here = session(context)
    path = f"/agents/{quote(agent, safe='')}" if agent else ""
    query = {} if dual else {"A2A-Version": "1.0"}
    card: dict[str, Any] = here.hub().get(f"{path}/.well-known/agent-card.json", query)
    _give_card(here, card)


@app.command()
def sign(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A card in JSON.", exists=True, dir_okay=False)],
    key: Annotated[
        Path | None, typer.Option(help="PEM file with the private key; without it, the hub's own key signs.")
    ] = None,
    key_url: Annotated[str, typer.Option(help="Where the public key is published; written in as `jku`.")] = "",
) -> None:
    """Sign a card, and write it to standard output; the signatures that it has stay."""
    from interhub.agent_cards.signing import sign_card
    from interhub.hub.signing import SigningKeys

    here = session(context)
    card = _read(file)
    home = here.home()
    if key is None:
        home.prepare()
    _give_card(here, sign_card(card.raw, SigningKeys(home, key or _own(here)).current(), key_url=key_url))


@app.command()
def verify(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="A card: a file, or an agent's URL.")],
    keys: Annotated[
        Path | None, typer.Option(help="JSON Web Key Set with keys that are trusted, besides those of the settings.")
    ] = None,
) -> None:
    """Check a card's signatures: by the keys of the settings, and where its key sets may be fetched, by those."""
    from interhub.adapters.a2a.adapter import A2aAdapter, A2aSettings
    from interhub.adapters.a2a.signatures import ALLOW_BAD_SIGNATURE, CardTrust
    from interhub.adapters.addresses import Reach
    from interhub.agent_cards import Binding, Endpoint
    from interhub.agent_cards.signature import SignatureState
    from interhub.agent_cards.signing import check_card

    here = session(context)
    settings = here.settings()
    trusted = _trusted(settings, keys)
    if source.startswith(("http://", "https://")):
        import anyio

        trust = CardTrust(keys=trusted, key_urls=settings.cards.key_urls)
        adapter = A2aAdapter(settings=A2aSettings(trust=trust), reach=Reach.of(settings.egress.allowed_networks))
        endpoint = Endpoint(binding=Binding.A2A_JSONRPC, url=source, options={ALLOW_BAD_SIGNATURE: True})
        with here.busy(f"Reading {source}"):
            signature = anyio.run(adapter.describe, endpoint).signature
    else:
        own = _own_keys(here)
        card = _read(Path(source))
        signature = check_card(card.raw, lambda claim: [*trusted, *own]).signature
    document = {
        "state": signature.state.value,
        "key_id": signature.key_id,
        "key_source": signature.key_source,
        "whole": signature.whole,
        "why": signature.why,
    }
    here.give(document, lambda console: typer.echo(str(signature)))
    here.end(Exit.DONE if signature.state is SignatureState.VERIFIED else Exit.FAILED)


@app.command("keys")
def list_keys(
    context: typer.Context,
    rotate: Annotated[bool, typer.Option("--rotate", help="Make another key; earlier ones stay published.")] = False,
    retire: Annotated[str, typer.Option(help="Publish the key of this id no more.")] = "",
) -> None:
    """Show the keys that the hub publishes, the one that signs first. A running hub follows a change at once."""
    from interhub.hub.signing import SigningKeys

    here = session(context)
    home = here.home()
    home.prepare()
    signing = SigningKeys(home, _own(here))
    if retire:
        signing.retire(retire)
        here.note(f"{retire} is published no more.")
    if rotate:
        here.note(f"{signing.rotate().id} signs from now on; retire an earlier key when its cards are gone.")
    signing.current()  # made when there is none yet
    found = signing.all()
    document = {"keys": [{"id": each.id, "algorithm": each.algorithm, "signs": n == 0} for n, each in enumerate(found)]}
    lines = [f"{each.id}  {each.algorithm}{'  signs' if n == 0 else ''}" for n, each in enumerate(found)]
    here.give(document, lambda console: typer.echo("\n".join(lines)))


def _read(file: Path) -> "AgentCard":
    from interhub.agent_cards import read_card
    from interhub.hub.errors import BadRequest

    try:
        return read_card(file.read_bytes(), source=str(file))
    except OSError as error:
        raise BadRequest(f"{file} cannot be read: {error.strerror or error}", "give a card's file or URL") from error


def _own(here: "Session") -> Path | None:
    return here.settings().cards.signing_key


def _own_keys(here: "Session") -> "tuple[VerifyKey, ...]":
    """Return the public halves of the hub's own keys, where it has any yet."""
    import orjson

    from interhub.agent_cards.keys import read_key_set
    from interhub.hub.signing import SigningKeys

    signing = SigningKeys(here.home(), _own(here))
    return read_key_set(orjson.dumps(signing.key_set()), "the hub's own keys") if signing.exist() else ()


def _trusted(settings: "Settings", keys: Path | None) -> "tuple[VerifyKey, ...]":
    from interhub.agent_cards.errors import BadKey
    from interhub.agent_cards.keys import read_key_set
    from interhub.hub.errors import BadRequest

    found: list[VerifyKey] = []
    for name, file in (("cards.trusted_keys", settings.cards.trusted_keys), ("--keys", keys)):
        if file is not None:
            try:
                found += read_key_set(file.read_bytes(), str(file))
            except (OSError, BadKey) as error:
                raise BadRequest(f"{name}: {error}") from error
    return tuple(found)


def _give_card(here: "Session", card: dict[str, Any]) -> None:
    import orjson

    here.give(card, lambda console: typer.echo(orjson.dumps(card, option=orjson.OPT_INDENT_2).decode()))
