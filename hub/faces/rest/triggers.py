"""Triggers and events over REST, and the webhooks that others call."""

from typing import Any

from pydantic import Field, TypeAdapter
from starlette.responses import Response

from interhub.agent_cards import Json
from interhub.hub.auth import LOCAL
from interhub.hub.faces.http import note
from interhub.hub.faces.shapes import instant
from interhub.hub.triggers.store import Delivery, Registered
from interhub.hub.triggers.triggers import Taken, Triggers

from .bodies import Body, JsonMap
from .operations import Asked, Operation, json_response


class AddTrigger(Body):
    """A trigger, by its document."""

    document: JsonMap = Field(description="The parsed YAML or JSON, with `kind: trigger`.")
    source_name: str = Field(default="the document", description="Where it came from, for errors.")


class FireTrigger(Body):
    """An event for one trigger."""

    data: JsonMap = Field(default={}, description="The event's data.")


class GiveEvent(Body):
    """Something that happened."""

    name: str = Field(description="What steps and triggers know it by.")
    data: JsonMap = Field(default={}, description="What is to be known of it.")
    id: str = Field(default="", max_length=200, description="The same id again is the same event; empty makes one.")


class TriggerOperations:
    """Answers."""

    def __init__(self, triggers: Triggers, base_url: str) -> None:
        self._triggers = triggers
        self._base_url = base_url

    def operations(self) -> list[Operation[Any, Any]]:
        """Return what can be asked."""
        return [
            Operation(
                name="list_triggers",
                method="GET",
                path="/api/triggers",
                summary="List your triggers (with the hub's own key, everybody's), and what each did last.",
                answer=self.list,
                answers={200: "Triggers"},
            ),
            Operation(
                name="add_trigger",
                method="POST",
                path="/api/triggers",
                summary="Register a trigger; the secret that is made for a webhook is said this once.",
                answer=self.add,
                answers={201: "Trigger"},
                refusals=(409, 422),
                body=TypeAdapter(AddTrigger),
            ),
            Operation(
                name="remove_trigger",
                method="DELETE",
                path="/api/triggers/{name}",
                summary="Forget a trigger; runs that it began go on.",
                answer=self.remove,
                answers={200: "Trigger"},
                refusals=(404,),
            ),
            Operation(
                name="fire_trigger",
                method="POST",
                path="/api/triggers/{name}/fire",
                summary="Have a trigger act now.",
                answer=self.fire,
                answers={200: "Taken"},
                refusals=(403, 404),
                body=TypeAdapter(FireTrigger),
            ),
            Operation(
                name="give_event",
                method="POST",
                path="/api/events",
                summary="Give an event: it begins the runs of the triggers that name it, and wakes steps that wait.",
                answer=self.give,
                answers={200: "Taken"},
                body=TypeAdapter(GiveEvent),
            ),
            Operation(
                name="webhook",
                method="POST",
                path="/hooks/{name}",
                summary="Take a webhook's request; it proves itself as its trigger says (`docs/triggers.md`).",
                answer=self.hook,
                answers={202: "Taken"},
                refusals=(400, 401, 404),
                open=True,
            ),
        ]

    async def list(self, asked: Asked[None, None]) -> Response:
        """List triggers."""
        found = await self._triggers.list(asked.principal)
        return json_response({"triggers": [self._shape(one, last) for one, last in found]})

    async def add(self, asked: Asked[AddTrigger, None]) -> Response:
        """Register one."""
        one, secret = await self._triggers.add(asked.principal, asked.body.document, source=asked.body.source_name)
        shaped = self._shape(one, None)
        shaped["secret"] = secret or None
        return json_response(shaped, status=201)

    async def remove(self, asked: Asked[None, None]) -> Response:
        """Forget one."""
        return json_response(self._shape(await self._triggers.remove(asked.principal, asked.path("name")), None))

    async def fire(self, asked: Asked[FireTrigger, None]) -> Response:
        """Have one act."""
        return json_response(
            taken_shape(await self._triggers.fire(asked.principal, asked.path("name"), asked.body.data))
        )

    async def give(self, asked: Asked[GiveEvent, None]) -> Response:
        """Take an event."""
        body = asked.body
        return json_response(taken_shape(await self._triggers.give(asked.principal, body.name, body.data, body.id)))

    async def hook(self, asked: Asked[None, None]) -> Response:
        """Take a webhook's request. Its sender learns no more than that it was taken."""
        name = asked.path("name")
        note(asked.request.scope, trigger=name)
        headers = {key.lower(): value for key, value in asked.request.headers.items()}
        taken = await self._triggers.hook(LOCAL.tenant, name, headers, await asked.request.body())
        shaped: dict[str, Json] = {"event": taken.occurrence.id, "new": taken.new, "runs": [], "deliveries": []}
        return json_response(shaped, status=202)

    def _shape(self, one: Registered, last: Delivery | None) -> dict[str, Json]:
        trigger = one.trigger
        return {
            "name": one.id,
            "description": trigger.description,
            "source": trigger.source,
            "document": trigger.dump(),
            "url": f"{self._base_url}/hooks/{one.id}" if trigger.webhook is not None else None,
            "subject": one.owner.subject,
            "created_at": instant(one.created_at),
            "last": None if last is None else _delivery_shape(last),
        }


def taken_shape(taken: Taken) -> dict[str, Json]:
    """Write what became of an event."""
    runs = dict.fromkeys(run for delivery in taken.deliveries for run in delivery.begun)
    return {
        "event": taken.occurrence.id,
        "new": taken.new,
        "runs": list(runs),
        "deliveries": [_delivery_shape(delivery) for delivery in taken.deliveries],
    }


def _delivery_shape(delivery: Delivery) -> dict[str, Json]:
    return {
        "trigger": delivery.subscription or None,
        "event": delivery.occurrence.id,
        "name": delivery.occurrence.name,
        "at": instant(delivery.occurrence.at),
        "state": delivery.state,
        "runs": list(delivery.begun),
        "error": delivery.error,
    }
