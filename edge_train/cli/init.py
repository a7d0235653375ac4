"""A commented recipe: every key of a task with its meaning; what is not set is a comment."""

from edge_train.recipe import GROUPS, Recipe, as_mapping, toml_value, with_absolute_paths
from edge_train.tasks import task_of


def commented(recipe: Recipe, understood: str = "") -> str:
    """Return the recipe as TOML, with a comment on every key of its task.

    Args:
      understood: what its data is, in words.
    """
    task, keys = task_of(recipe), recipe.declared()
    values = as_mapping(with_absolute_paths(recipe))  # the file may be put anywhere
    lines = [f"# {task.says}; start it with `edge-train run --recipe THIS_FILE`"]
    if understood:
        lines.append(f"# {understood}")
    lines.append(f"task = {toml_value(task.name)}")
    for group in GROUPS:
        own = [key for key in keys.values() if key.group == group]
        if own:
            lines += ["", f"# {group}"]
        for key in own:
            value = values[key.name]
            if value is None:
                value = task.usual(key.name)
            words = f"  # {key.help}" + (f": {', '.join(key.choices)}" if key.choices else "")
            if value is None:
                lines.append(f"# {key.name} ={words}")
            else:
                mark = "" if value == values[key.name] and value != key.default else "# "
                lines.append(f"{mark}{key.name} = {toml_value(value)}{words}")
    return "\n".join(lines) + "\n"
