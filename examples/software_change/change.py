"""Who changes software: a coder that writes, and a reviewer that really runs what was written.

The coder is scripted: it writes the obvious version first, and mends what the reviewer says. Put a language model in
its place; the reviewer stays as it is.
"""

from collections.abc import Callable
from typing import Any

OBVIOUS = "def mean(values):\n    return sum(values) / len(values)\n"
CAREFUL = "def mean(values):\n    if not values:\n        return 0.0\n    return sum(values) / len(values)\n"
CASES: tuple[tuple[list[float], float], ...] = (([1, 2, 3], 2.0), ([4], 4.0), ([], 0.0))


def coder(task: str, problems: list[str]) -> dict[str, Any]:
    """Write the change, or mend it where a review found problems."""
    careful = any("ZeroDivisionError" in problem for problem in problems)
    return {"task": task, "source": CAREFUL if careful else OBVIOUS}


def reviewer(source: str) -> dict[str, Any]:
    """Run a change against its cases, and say what is wrong with it."""
    scope: dict[str, Any] = {}
    try:
        exec(compile(source, "the change", "exec"), scope)
    except SyntaxError as error:
        return {"accepted": False, "problems": [f"it is not Python: {error}"]}
    problems = [problem for values, wanted in CASES if (problem := _tried(scope.get("mean"), values, wanted))]
    return {"accepted": not problems, "problems": problems}


def _tried(function: Callable[[list[float]], float] | None, values: list[float], wanted: float) -> str:
    if function is None:
        return "there is no function mean"
    try:
        given = function(values)
    except ArithmeticError as error:
        return f"mean({values}) raises {type(error).__name__}: {error}"
    return "" if given == wanted else f"mean({values}) is {given}, not {wanted}"
