"""The page of methods: what runs each, what a step costs, which keys only some of them read."""

from dataclasses import replace

from edge_train.methods import methods
from edge_train.methods.method import (
    ADAPTERS,
    BLOCKS,
    FORWARD,
    GRADIENT,
    LARGE,
    MATRICES,
    TOKENS,
    Method,
)
from edge_train.recipe import Recipe
from edge_train.tasks import tasks
from edge_train.tasks.task import Task

_NEEDS = {
    FORWARD: "forward passes",
    GRADIENT: "gradients",
    LARGE: "large blocks",
    MATRICES: "matrices",
    ADAPTERS: "adapters",
    BLOCKS: "blocks that run alone",
    TOKENS: "other tokens in a text",
}


def methods_page() -> str:
    """Return a row for every method of the registry, and which keys it reads."""
    known = list(methods.all().values())
    parts = [
        "# Methods\n",
        "    edge-train run DATA --method NAME\n",
        "[methods.md](../methods.md) says when to choose which. Passes are those of one sample in "
        "a step, with the defaults of the first task that has the method.\n",
        "| method | what it does | needs of the engine | passes of a step | tasks |",
        "|---|---|---|---|---|",
    ]
    parts += [_row(method) for method in known]
    parts += ["\n## Keys that not every method reads\n", "| method | keys |", "|---|---|"]
    parts += [f"| `{one.name}` | {', '.join(f'`{key}`' for key in one.reads)} |" for one in known]
    parts += [
        "\n## Defaults of a method\n",
        "| task | method, preset | defaults |",
        "|---|---|---|",
    ]
    for task in tasks.all().values():
        for (name, preset), values in task.defaults.items():
            which = "all" if name == "*" else f"`{name}`"
            which += "" if preset == "default" else f", preset `{preset}`"
            shown = ", ".join(f"`{key}` {value}" for key, value in values.items())
            parts.append(f"| {task.name} | {which} | {shown} |")
        for name, values in task.pretrained.items():
            which = "all" if name == "*" else f"`{name}`"
            shown = ", ".join(f"`{key}` {value}" for key, value in values.items())
            parts.append(f"| {task.name} | {which}, of a model with weights | {shown} |")
        if task.pretrained_warmup:
            share = f"`warmup` {100 * task.pretrained_warmup:.0f} % of the steps"
            parts.append(f"| {task.name} | all, of a model with weights | {share} |")
    return "\n".join(parts) + "\n"


def _row(method: Method) -> str:
    able = [task for task in tasks.all().values() if _runs(task, method)]
    needs = ", ".join(_NEEDS[need] for need in sorted(method.needs))
    passes = method.passes(_recipe_of(able[0], method)).words if able else ""
    names = ", ".join(task.name for task in able)
    return f"| `{method.name}` | {method.says} | {needs} | {passes} | {names} |"


def _runs(task: Task, method: Method) -> bool:
    return any(method.needs <= use.offers for use in task.all_uses().values())


def _recipe_of(task: Task, method: Method) -> Recipe:
    """Return a recipe of one sample, with the defaults of the task for the method."""
    values = {**task.defaults.get(("*", "default"), {}), **method.defaults}
    values |= task.defaults.get((method.name, "default"), {})
    known = {key: value for key, value in values.items() if key in task.recipe.declared()}
    return replace(task.recipe(), **{**known, "samples": 1})
