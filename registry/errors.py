"""How the registry can refuse.

RegistryError
├── AgentNotFound
├── AgentExists
├── InvalidAgentId
├── ImportUnreadable         a file names no servers that could be imported
└── DatabaseError
    ├── DatabaseUnusable     the file or server cannot be opened or written
    │   └── DatabaseAway     the server does not answer just now; it may be back in a moment
    └── DatabaseTooNew       a newer interhub has migrated it
"""


def _shown(agent_id: str) -> str:
    return repr(agent_id if len(agent_id) <= 80 else agent_id[:79] + "…")


class RegistryError(Exception):
    """The registry refused."""


class AgentNotFound(RegistryError):
    """No agent of that id is registered for the tenant."""

    def __init__(self, agent_id: str, near: tuple[str, ...] = ()) -> None:
        super().__init__(agent_id, near)
        self.agent_id = agent_id
        self.near = near
        """Ids that look like it."""

    def __str__(self) -> str:
        hint = f"did you mean {' or '.join(self.near)}?" if self.near else "see `interhub agents list`"
        return f"no agent is registered as {_shown(self.agent_id)}; {hint}"


class AgentExists(RegistryError):
    """An agent of that id is already registered for the tenant."""

    def __init__(self, agent_id: str) -> None:
        super().__init__(agent_id)
        self.agent_id = agent_id

    def __str__(self) -> str:
        return f"an agent is already registered as {self.agent_id!r}; choose another with --name, or remove it first"


class InvalidAgentId(RegistryError):
    """An agent's id is not of the allowed form."""

    def __init__(self, agent_id: str) -> None:
        super().__init__(agent_id)
        self.agent_id = agent_id

    def __str__(self) -> str:
        return (
            f"{_shown(self.agent_id)} cannot be an agent's id: use 1 to 32 lower-case letters, digits and hyphens, "
            "beginning and ending with a letter or digit"
        )


class ImportUnreadable(RegistryError):
    """A file is not one that names MCP servers."""

    def __init__(self, source: str, why: str) -> None:
        super().__init__(source, why)
        self.source = source
        self.why = why

    def __str__(self) -> str:
        return (
            f"{self.source} cannot be imported: {self.why}; "
            "give an mcp.json, a claude_desktop_config.json or VS Code's mcp.json"
        )


class DatabaseError(RegistryError):
    """The database cannot be used."""


class DatabaseUnusable(DatabaseError):
    """The database cannot be opened or written."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(where, why)
        self.where = where
        self.why = why

    def __str__(self) -> str:
        return f"the database {self.where} cannot be used: {self.why}"


class DatabaseAway(DatabaseUnusable):
    """The database's server does not answer, as while it restarts: the same again may succeed in a moment."""


class DatabaseTooNew(DatabaseError):
    """A newer interhub has migrated the database."""

    def __init__(self, where: str, revision: str) -> None:
        super().__init__(where, revision)
        self.where = where
        self.revision = revision

    def __str__(self) -> str:
        return (
            f"the database {self.where} is at revision {self.revision}, which this version of interhub does not know; "
            "upgrade interhub, or point it at another data directory"
        )
