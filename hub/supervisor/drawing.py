"""A plan drawn: as lines for a terminal, or as a Mermaid graph for documents."""

from collections.abc import Iterator, Sequence

from .graph import compile_steps
from .model import (
    AskStep,
    CallStep,
    ChooseStep,
    LoopStep,
    MapStep,
    OnError,
    ParallelStep,
    Plan,
    PlanStep,
    SequenceStep,
    Step,
    TeamStep,
    WaitStep,
    bodies,
    subplan,
)


def tree(plan: Plan) -> str:
    """Return a plan as an indented tree: each step with what it does, its rules, and the steps within it."""
    head = plan.name or "workflow"
    if plan.inputs:
        head += f" ({', '.join(plan.inputs)})"
    lines = [head, *_branches(_parts(plan))]
    return "\n".join(lines)


def mermaid(plan: Plan) -> str:
    """Return a plan as a Mermaid flow chart: an arrow from each step to those that come after it."""
    lines = ["flowchart TD"]
    lines += _chart(plan.steps, "", "    ")
    if plan.on_failure:
        lines += ['    subgraph on_failure["when it has failed"]', *_chart(plan.on_failure, "on_failure.", "        ")]
        lines.append("    end")
    return "\n".join(lines)


def say(step: Step) -> str:
    """Return what a step does, in a few words."""
    match step:
        case CallStep():
            spec = step.call
            who = spec.agent or (f"whoever can {_short(spec.need)}" if spec.need else "whoever has it")
            named = f".{spec.capability}" if spec.capability else ""
            others = "".join(f", else {other.agent}" for other in spec.fallback)
            return f"call {who}{named}{others}"
        case SequenceStep():
            return "one after the other"
        case ParallelStep():
            return "side by side"
        case MapStep():
            return f"for each {step.map.name} of {_short(step.map.over)}, {step.map.concurrency} at a time"
        case ChooseStep():
            return "choose"
        case LoopStep():
            until = f" until {_short(step.loop.until)}" if step.loop.until else ""
            return f"loop{until}, at most {step.loop.at_most} times"
        case PlanStep():
            return f"workflow {step.plan.name}" if step.plan.name else "plan"
        case TeamStep():
            return f"team {step.team.name or 'of ' + ', '.join(step.team.members)}"
        case AskStep():
            return f"{'approval' if step.ask.approval else 'ask'}: {_short(step.ask.message)}"
        case WaitStep():
            spec_ = step.wait
            if spec_.event:
                return f"wait for the event {spec_.event}"
            return f"wait until {_short(spec_.until)}" if spec_.until else f"wait {spec_.seconds} s"


_Part = tuple[str, "list[_Part]"]


def _parts(plan: Plan) -> "list[_Part]":
    parts: list[_Part] = [_part(step) for step in plan.steps]
    if plan.on_failure:
        parts.append(("when it has failed", [_part(step) for step in plan.on_failure]))
    return parts


def _part(step: Step) -> _Part:
    name = step.id or "·"
    rules = [f"after {', '.join(step.needs)}"] if step.needs else []
    if step.on_error is OnError.CONTINUE:
        rules.append("may fail")
    inner: list[_Part] = []
    if isinstance(step, SequenceStep):
        inner += [_part(one) for one in step.sequence]
    elif isinstance(step, ParallelStep):
        inner += [_part(one) for one in step.parallel]
    else:
        if step.timeout_s is not None:
            rules.append(f"within {step.timeout_s:g} s")
        for where, steps in bodies(step):
            made = [_part(one) for one in steps]
            inner += (
                made
                if where.endswith((".steps",)) and not where.startswith("choose")
                else [(_label(step, where), made)]
            )
        if (within := subplan(step)) is not None:
            inner += _parts(within[1])
    said = f"{name}: {say(step)}" + (f" [{'; '.join(rules)}]" if rules else "")
    return said, inner


def _label(step: Step, where: str) -> str:
    if isinstance(step, ChooseStep) and where.startswith("choose"):
        return f"when {_short(step.choose[int(where.split('.')[1])].when)}"
    return where


def _branches(parts: "Sequence[_Part]") -> Iterator[str]:
    for number, (said, inner) in enumerate(parts):
        last = number == len(parts) - 1
        yield ("└─ " if last else "├─ ") + said
        for line in _branches(inner):
            yield ("   " if last else "│  ") + line


def _chart(steps: Sequence[Step], prefix: str, indent: str) -> Iterator[str]:
    graph = compile_steps(steps)
    for node in graph.nodes:
        name, step = _name(prefix + node.path), node.step
        inner = list(bodies(step))
        within = subplan(step)
        said = _quoted(f"{step.id}: {say(step)}")
        if inner or within is not None:
            yield f"{indent}subgraph {name}[{said}]"
            yield f"{indent}    {name}_begin(( ))"
            for number, (where, body) in enumerate(inner):
                yield f"{indent}    subgraph {name}_{number}[{_quoted(_label(step, where))}]"
                yield from _chart(body, f"{prefix}{node.path}.{number}.", indent + "        ")
                yield f"{indent}    end"
            if within is not None:
                yield from _chart(within[1].steps, f"{prefix}{node.path}.", indent + "    ")
            yield f"{indent}end"
        elif isinstance(step, AskStep):
            yield f"{indent}{name}{{{{{said}}}}}"
        else:
            yield f"{indent}{name}[{said}]"
    for node in graph.nodes:
        for path in node.after:
            yield f"{indent}{_name(prefix + path)} --> {_name(prefix + node.path)}"


def _name(path: str) -> str:
    return "s_" + path.replace(".", "_")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "#quot;") + '"'


def _short(text: str, width: int = 60) -> str:
    one = " ".join(text.split())
    return one if len(one) <= width else one[: width - 1] + "…"
