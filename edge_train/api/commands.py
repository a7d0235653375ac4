"""`plan`, `export` and `generate`: the commands of these names, each in a process of its own."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_train.api.process import command, failure_of
from edge_train.api.said import Said
from edge_train.errors import InputError
from edge_train.recipe import Recipe, read_toml, to_toml, with_absolute_paths


def plan(recipe: Any, mem: str | int | None = None) -> dict[str, Any]:
    """Return what a run would hold, as `edge-train plan --json` says it; trains nothing.

    Args:
      mem: the cap that it is compared with; None: that of the recipe.

    Returns:
      `fits`, `plan` with its phases and `peak_bytes`, `choices`, and `refusal` where it does not
      fit.

    Raises:
      EdgeTrainError: the recipe cannot be run at all.
    """
    if not isinstance(recipe, Recipe) or not recipe.task:
        raise InputError(f"plan: {type(recipe).__name__} is no recipe; give it what `run` gets.")
    if mem is not None:
        recipe = replace(recipe, cap_bytes=mem)  # type: ignore[arg-type] # a key reads "8GB"
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "recipe.toml")
        file.write_text(to_toml(with_absolute_paths(recipe)), "utf-8")
        text = _said(["plan", "--recipe", str(file), "--json"], even_if_refused=True)
    found: dict[str, Any] = json.loads(text)
    return found


def export(model: str | Path, out: str | Path, **options: Any) -> Path:
    """Write an artifact for an inference engine, as `edge-train export` does; return its path.

    Args:
      options: those of the command, underscores for hyphens: `quant="int8"`, `for_="ort-training"`.

    Raises:
      EdgeTrainError: it cannot be exported.
    """
    _said(["export", str(model), str(out), *_flags(options)])
    return Path(out)


def generate(
    run: str | Path, prompts: Sequence[str] | None = None, **options: Any
) -> list[Path] | list[str]:
    """Return paths of pictures, or answers to prompts, as `edge-train generate` makes them.

    Args:
      run: folder of a run of task personalize, or of task language-model.
      prompts: of pictures: `{}` or the token marks the learned thing; None: those of the run's
        previews. Of a language model: each is answered by a process of its own.
      options: those of the command: `count`, `seed`, `steps`, `guidance`, `out`; `max_tokens`,
        `temperature`, `top_k`, ...

    Raises:
      EdgeTrainError: nothing was learned, or a prompt cannot be used.
    """
    if isinstance(prompts, str):
        raise InputError(f"prompts is a text, must be a list: [{prompts!r}].")
    words = ["generate", str(run), *_flags(options)]
    if _writes_text(Path(run)):
        asked = prompts or ()
        return [_said([*words, f"--prompt={one}"]).removesuffix("\n") for one in asked]
    for prompt in prompts or ():
        words.append(f"--prompt={prompt}")
    return [Path(line) for line in _said(words).splitlines()]


def _writes_text(run: Path) -> bool:
    """Return whether a run is of a language model; a folder that is none is for the command."""
    try:
        return read_toml(run / "recipe.toml").get("task") == "language-model"
    except InputError:
        return False


def _flags(options: dict[str, Any]) -> list[str]:
    """Return options as they are typed; one that is None is left to the command."""
    given = {name: value for name, value in options.items() if value is not None}
    return [f"--{name.strip('_').replace('_', '-')}={value}" for name, value in given.items()]


def _said(words: Sequence[str], *, even_if_refused: bool = False) -> str:
    """Return what a command wrote to standard output.

    Args:
      even_if_refused: where it wrote something, its refusal is in there.

    Raises:
      EdgeTrainError: in the words of the command.
    """
    complaints = Said()
    with subprocess.Popen(
        command(words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints.fileno(),
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        child.wait()
    if child.returncode and not (even_if_refused and output.strip()):
        raise failure_of(child.returncode, complaints.text())
    return output.decode("utf-8")
