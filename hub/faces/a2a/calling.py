"""Who calls, whom, and in which version: what a request's context says, the same over every binding."""

import re
from dataclasses import replace
from typing import cast

from a2a import types as a2a
from a2a.auth.user import User
from a2a.server.context import ServerCallContext
from a2a.utils.errors import ExtensionSupportRequiredError, InvalidParamsError, VersionNotSupportedError
from a2a.utils.proto_utils import validate_proto_required_fields
from google.protobuf.message import Message as ProtoMessage

from interhub.adapters import Message, Principal
from interhub.adapters.content import check_extension_uris, is_extension
from interhub.agent_cards.build import AGENT_TENANT
from interhub.hub.errors import RunNotFound
from interhub.registry import Agent

from .content import read_message

_VERSION = re.compile(r"(1\.0|0\.3)(\.\d+)?")


class Caller(User):
    """The principal as the SDK knows users."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal

    @property
    def is_authenticated(self) -> bool:
        """Nobody gets this far without a key."""
        return True

    @property
    def user_name(self) -> str:
        """Name of the principal in records."""
        return self.principal.key


def begin(params: ProtoMessage, context: ServerCallContext) -> None:
    """Check what every request must have, and find out whom it is for.

    Raises:
        InvalidParamsError: a required field is missing, or the tenant is none that this caller may name.
        RunNotFound: the task of another tenant is asked for; no answer tells whether there is one.
    """
    validate_proto_required_fields(params)
    tenant = context.tenant
    if tenant.startswith(AGENT_TENANT) and agent_of(context) in ("", tenant.removeprefix(AGENT_TENANT)):
        context.state["agent_id"] = tenant.removeprefix(AGENT_TENANT)
    elif tenant and tenant != caller_of(context).tenant:
        if task_id := _task_id(params):
            raise RunNotFound(task_id)
        raise InvalidParamsError("there is no such tenant for this key; pass on the tenant of the card, or none")
    facts_of(context).update(a2a=type(params).__name__.removesuffix("Request"), a2a_version=context.state["version"])


def check_version(version: str, *, only: str = "") -> None:
    """Refuse a version that we do not speak, or that is not the only one spoken at an address.

    Raises:
        VersionNotSupportedError: says which ones are.
    """
    spoken = _VERSION.fullmatch(version)
    if version and (spoken is None or (only and spoken[1] != only)):
        known = f"{only} is" if only else "1.0 and 0.3 are"
        raise VersionNotSupportedError(f"A2A {version[:20]} is not spoken here; {known}")


def caller_of(context: ServerCallContext) -> Principal:
    """Return on whose behalf a request is."""
    return cast(Caller, context.user).principal


def agent_of(context: ServerCallContext) -> str:
    """Return the id of the agent that is addressed; empty for the hub."""
    return cast(str, context.state["agent_id"])


def facts_of(context: ServerCallContext) -> dict[str, object]:
    """Return the fields of the request's canonical line."""
    return cast("dict[str, object]", context.state["facts"])


def received(message: a2a.Message) -> Message:
    """Read a message that came in.

    Raises:
        InvalidParamsError: it names an extension that is no URI.
    """
    read = read_message(message)
    try:
        check_extension_uris(read)
    except ValueError as error:
        raise InvalidParamsError(str(error)) from None
    return read


def check_extensions(agent: Agent, message: a2a.Message, context: ServerCallContext) -> None:
    """Refuse a message that does not declare an extension that the agent requires (A2A 1.0, section 3.3.4).

    One that the agent does not know is left aside (section 4.6.3).

    Raises:
        ExtensionSupportRequiredError: names the extensions that are missing.
    """
    missing = [
        extension.uri
        for extension in agent.card.extensions
        if extension.required
        and extension.uri not in context.requested_extensions
        and extension.uri not in message.extensions
    ]
    if missing:
        raise ExtensionSupportRequiredError(
            f"agent {agent.id} wants extensions declared in A2A-Extensions: {', '.join(missing)}"
        )


def with_extensions(message: Message, agent: Agent, context: ServerCallContext) -> Message:
    """Return a message with the extensions that its request declared and the agent knows: they are passed on."""
    known = {extension.uri for extension in agent.card.extensions if is_extension(extension.uri)}
    declared = sorted(known & context.requested_extensions - set(message.extensions))
    return replace(message, extensions=(*message.extensions, *declared)) if declared else message


def _task_id(params: ProtoMessage) -> str:
    if isinstance(params, a2a.SendMessageRequest):
        return params.message.task_id
    return str(getattr(params, "task_id", "") or getattr(params, "id", ""))
