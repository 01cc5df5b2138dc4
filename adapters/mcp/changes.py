"""When a server's tools, prompts and resources may be others than they were: it says so, or nobody listened."""

from collections.abc import Callable

LIST_CHANGED = {
    "tools": ("toolsListChanged", "notifications/tools/list_changed"),
    "prompts": ("promptsListChanged", "notifications/prompts/list_changed"),
    "resources": ("resourcesListChanged", "notifications/resources/list_changed"),
}
"""What is listed, with the flag that subscribes to its changes and the notification that tells of them."""
CHANGES = frozenset(method for _, method in LIST_CHANGED.values())
"""The notifications that make a card out of date."""
UNHEARD = "unheard"
"""The reason where a server is listened to again: it may have said something meanwhile."""


class Changes:
    """Tells by its label which server is to be looked at again, and why."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self._tell = tell
        self._listened_to: set[str] = set()

    def said(self, label: str, method: str) -> None:
        """Take what a server says that belongs to no request."""
        if method in CHANGES:
            self._tell(label, method)

    def listening(self, label: str) -> None:
        """Note that a server is listened to from now on; not for the first time, it may have changed unheard."""
        if label in self._listened_to:
            self._tell(label, UNHEARD)
        self._listened_to.add(label)
