"""What an agent says about itself, whichever version of A2A, or MCP, it said it in."""

from dataclasses import dataclass, field

from .capability import Capability, Kind
from .endpoint import Endpoint
from .extension import Extension
from .json_value import JsonObject, empty_object
from .signature import Signature


@dataclass(frozen=True, kw_only=True)
class AgentCard:
    """What an agent says about itself (A2A 1.0, section 4.4.1; MCP `server/discover` and the lists of a server)."""

    name: str
    description: str = ""
    version: str = ""
    """The agent's own version, not the protocol's."""
    provider: str = ""
    """Organisation that runs the agent."""
    documentation_url: str = ""
    icon_url: str = ""
    capabilities: tuple[Capability, ...] = ()
    """All it can do, in the agent's order."""
    interfaces: tuple[Endpoint, ...] = ()
    """Where it says it is reached, preferred first."""
    streaming: bool = False
    push_notifications: bool = False
    extended_card: bool = False
    """An authenticated caller may be shown more (A2A 1.0, section 3.1.11)."""
    extensions: tuple[Extension, ...] = ()
    """Protocol extensions that it declares, without the one that carries our schemas (`schemas`)."""
    input_modes: tuple[str, ...] = ("text/plain",)
    output_modes: tuple[str, ...] = ("text/plain",)
    instructions: str = ""
    """How a model should use the agent as a whole (MCP `instructions`)."""
    signature: Signature = field(default_factory=Signature)
    """What its signatures were worth when it was read."""
    raw: JsonObject = field(default_factory=empty_object)
    """The card as it was received; empty for what we made ourselves."""

    def capability(self, name: str, kind: Kind | None = None) -> Capability | None:
        """Return the capability of that name, the first of any kind when `kind` is not given."""
        for capability in self.capabilities:
            if capability.name == name and (kind is None or capability.kind is kind):
                return capability
        return None
