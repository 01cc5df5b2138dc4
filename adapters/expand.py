"""Takes `${NAME}` from the hub's environment when a connection is made, so that no secret is ever stored."""

import re
from collections.abc import Mapping

from .errors import BadEndpoint

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def expand(value: str, env: Mapping[str, str]) -> str:
    """Replace every `${NAME}` and `${NAME:-default}` in `value` from `env`.

    As in a shell, the default also stands in for a variable that is set but empty. Any other `$` is left as it is, and
    what was put in is not expanded again.

    Raises:
        BadEndpoint: a variable without a default is not set; the message names the variable, never a value.
    """

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        found = env.get(name)
        if default is not None:
            return found or default
        if found is None:
            raise BadEndpoint(
                f"${{{name}}}",
                f"the environment variable {name} is not set",
                f"set {name} where the hub is started, or give a default: ${{{name}:-...}}",
            )
        return found

    return _REFERENCE.sub(replace, value)


def expand_all(values: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """Expand every value of a mapping, such as an endpoint's headers.

    Raises:
        BadEndpoint: a variable without a default is not set.
    """
    return {key: expand(value, env) for key, value in values.items()}
