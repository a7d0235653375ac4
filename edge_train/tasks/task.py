"""What `--task` names: a record of its recipe, its job, its engines and what it may give up."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from edge_train.command import Command
from edge_train.errors import InputError
from edge_train.methods import methods, schedules, selections
from edge_train.methods.choosing import Schedule, Selection
from edge_train.methods.exact import AdapterKeys
from edge_train.methods.method import GRADIENT, Method
from edge_train.quant import names_with, quants
from edge_train.recipe import Recipe, set_keys
from edge_train.registry import nearest
from edge_train.runtimes.engine import Use, engines

R = TypeVar("R", bound=Recipe)
NOT_MEASURED = "not measured"
_WARMS_UP = 2  # the version of rules from which on there may be a warm-up by default
# What a saving costs, the cheapest first; a task lists its savings in this order.
COSTS = (
    "the same numbers",
    "time",
    "a little accuracy of weights or moments",
    "an estimated gradient",
    "a product less",
)


@dataclass(frozen=True, kw_only=True)
class Saving:
    """One key of a recipe that a run may give up something of, for memory.

    Attributes:
      key: of the recipe.
      values: from the one that holds most to the one that holds least, each with the words for
        people that say what it means. A run takes those that have words by itself, in this order;
        `edge-train plan` walks the same way, and `--all` multiplies all of them.
      costs: one of `COSTS`.
      when: whether it saves anything in a run of this recipe, its defaults filled in.
      only_auto: it changes what is learned, or how well, so a run takes it before the first step
        only, and only where the user left the key to `auto`.
      flag: what to type for a value, where it is not `--key value`.
      title: of its column in `edge-train plan`; empty: it has none of its own.
      reasons: why a run chose a value by itself, for people.
    """

    key: str
    values: tuple[tuple[Any, str], ...]
    costs: str
    when: Callable[[Recipe], bool] = lambda recipe: True
    only_auto: bool = False
    flag: str | None = None
    title: str = ""
    reasons: Mapping[Any, str] = field(default_factory=dict)

    def after(self, value: Any) -> tuple[Any, str] | None:
        """Return what holds less than a value and is taken by a run itself; None: nothing does."""
        known = [one for one, _ in self.values]
        if value in known:
            rest = self.values[known.index(value) + 1 :]
        elif isinstance(value, int):
            rest = tuple((one, said) for one, said in self.values if one and one < value)
        else:
            rest = ()
        return next(((one, said) for one, said in rest if said), None)


def on(*names: str) -> Callable[[Recipe], bool]:
    """Return a condition of a saving: that a run is on one of these engines."""
    return lambda recipe: recipe.runtime in names


SMALLER_CALLS = Saving(
    key="batch_limit",
    values=(
        (None, ""),
        (8, "at most 8 samples in each call of the model"),
        (1, "one sample in each call of the model"),
    ),
    costs="the same numbers",
    title="samples a call",
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained on what.

    Attributes:
      name: what `--task` says.
      says: a line for people.
      recipe: the class of its recipes.
      job: "module:class" that is made from a recipe.
      uses: how engines of ours serve it, the first one by default; `Engine.serves` adds others.
      auto: the method of `--method auto`.
      defaults: values of keys that are not set, by method and preset; those of method `*` hold
        for every method and stand under its own.
      pretrained: the same of models that have weights, by method, over `defaults`.
      pretrained_warmup: share of the steps of such a model that are a warm-up.
      savings: what a run may give up, the cheapest first.
      quality: engine, method (of an adapter its kind) and weights -> the row of docs/benchmarks and
        the cell that say how well it learns, measured on `measured_on`.
      as_measured: "module:function" that returns whether a recipe with its defaults filled in is
        what that was measured of, but for keys that do not change what is learned.
      why_auto: why method `auto` is taken where an engine can, for people.
      backward: forward passes that a backward pass is worth, with the layers that it computes
        again: one more to the start of the words only, two with gradients of all weights.
      for_rehearsal: makes a recipe of few steps hold what the whole run will hold, for a rehearsal.
      sections: "module:function" that returns the sections of its report.
      title: of its report, from the facts of the journal.
      accepts: "module:function" that returns what a file or folder is, in words, where it looks
        like data of this task; None where it does not.
      data: the key that such a file or folder is the value of.
      learned: what its runs write that a new one can start from (`--from`), the best first, and
        the key that takes it: `model`, or `start`.
      of_trainable: keys of what `trainable` says: a new run that says something else has others.
      commands: verbs of its own, `edge-train VERB RUN`.
      together: returns why devices that each have data of their own cannot train a recipe as one
        fleet; None: they can.
    """

    name: str
    says: str
    recipe: type[Recipe]
    job: str
    uses: Mapping[str, Use]
    auto: str
    why_auto: str = "the exact gradient fits"
    backward: int = 3
    for_rehearsal: Callable[[Any], Recipe] = lambda recipe: recipe
    defaults: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    pretrained: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pretrained_warmup: float = 0.0
    savings: tuple[Saving, ...] = ()
    quality: Mapping[tuple[str, str, str], tuple[str, str]] = field(default_factory=dict)
    measured_on: str = ""
    as_measured: str | None = None
    sections: str | None = None
    title: Callable[[Mapping[str, Any]], str] = lambda facts: f"Run: {facts.get('task')}"
    accepts: str | None = None
    data: str = "data"
    learned: Mapping[str, str] = field(default_factory=dict)
    of_trainable: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()
    together: Callable[[Any], str | None] = lambda recipe: (
        f"a fleet was not tried on task {recipe.task!r}"
    )

    def use(self, engine: str) -> Use:
        """Return how an engine serves this task.

        Raises:
          InputError: it does not; those that do are in the message.
        """
        uses = self.all_uses()
        if engine not in uses:
            engines.get(engine)  # a name that nobody knows gets the nearest one
            raise InputError(
                f"runtime {engine!r} does not serve task {self.name!r}; choose one of "
                f"{', '.join(uses)}."
            )
        return uses[engine]

    def all_uses(self) -> dict[str, Use]:
        """Return how each engine serves this task."""
        others = {
            engine.name: engine.serves[self.name]
            for engine in engines.all().values()
            if self.name in engine.serves
        }
        return {name: self._with_quants(name, use) for name, use in {**self.uses, **others}.items()}

    def _with_quants(self, engine: str, use: Use) -> Use:
        """Return a use with the quantisations that say themselves that they serve it."""
        more = names_with(lambda quant: (self.name, engine) in quant.serves)
        return replace(use, quants=(*use.quants, *more)) if more else use

    @property
    def loads(self) -> bool:
        """Whether one of its engines loads code, during which more memory is kept free."""
        return any(engines.get(name).loads for name in self.all_uses())

    def known_quality(self, recipe: Recipe) -> str:
        """Return where a way to run was measured and what it reached."""
        way = recipe.method
        if isinstance(recipe, AdapterKeys) and recipe.adapts:
            way = recipe.trainable
        found = self.quality.get((recipe.runtime, way, recipe.quant))
        if found is None or recipe.preset != "default":
            return NOT_MEASURED
        return f"{self.measured_on} {found[1].removesuffix(' %')} %"

    def able(self) -> list[str]:
        """Return the methods that some engine can run for this task."""
        offers = frozenset[str]().union(*(use.offers for use in self.all_uses().values()))
        return [m.name for m in methods.all().values() if m.needs <= offers]

    def resolve(
        self, recipe: R, engine: str, model_defaults: Mapping[str, Any], *, pretrained: bool = False
    ) -> R:
        """Return the recipe with every None that a run needs filled in.

        Args:
          engine: that will run it.
          model_defaults: keys that the model decides (window, resolution, guidance, ...).
          pretrained: the model has weights that were trained before.

        Raises:
          InputError: the method, preset or weights are not for this task on this engine, or a key
            is set that the method does not read.
        """
        use = self.use(engine)
        self._check_no_trainable(recipe)
        method = methods.get(self._auto(recipe, use) if recipe.method == "auto" else recipe.method)
        self._check(method, recipe, engine, use)
        if recipe.batch_selection is not None:
            self._check_selection(selections.get(recipe.batch_selection), engine, use)
        quant = use.quants[0] if recipe.quant == "auto" else recipe.quant
        if quant not in use.quants:
            quants.get(quant)  # a name that nobody knows gets the nearest one
            raise InputError(
                f"quant {quant!r} is not for task {self.name!r} on runtime {engine!r}, only "
                f"{', '.join(use.quants)}; leave it out."
            )
        values: dict[str, Any] = {"method": method.name, "quant": quant, "runtime": engine}
        values["options"] = _options(method, recipe)
        defaults = {**model_defaults, **self._defaults(method, recipe.preset)}
        if pretrained and recipe.preset == "default":
            defaults |= {**self.pretrained.get("*", {}), **self.pretrained.get(method.name, {})}
        for name, value in defaults.items():
            named_other = name == "learning_rate" and getattr(recipe, "relative_rate", None)
            declared = name in recipe.declared()
            if declared and getattr(recipe, name) in (None, ()) and not named_other:
                values[name] = value
        found = replace(recipe, **values)
        if found.warmup is None:
            share = self.pretrained_warmup if pretrained and recipe.rules >= _WARMS_UP else 0.0
            return replace(found, warmup=int(share * (found.steps or 0)))
        if found.warmup >= (found.steps or found.warmup + 1):
            raise InputError(
                f"warmup is {found.warmup}, but the run has {found.steps} steps; use fewer, or "
                "more --steps."
            )
        return found

    def _auto(self, recipe: Recipe, use: Use) -> str:
        """Return the best method that the engine can, or the one whose own keys were set."""
        for method in methods.all().values():
            asked = [name for name in set_keys(recipe) if name in _own_keys(method)]
            if method.name in self.able() and (recipe.preset in method.presets or asked):
                return method.name
        if methods.get(self.auto).needs <= use.offers:
            return self.auto
        return next(m.name for m in methods.all().values() if m.needs <= use.offers)

    def _check_no_trainable(self, recipe: Recipe) -> None:
        """Refuse a method that is what is trained: `lora` is one of some tasks only."""
        name, trainable = recipe.method, recipe.declared().get("trainable")
        if name == "auto" or trainable is None or name in self.able():
            return
        if name in trainable.choices:
            raise InputError(
                f"method {name!r} is not for task {self.name!r}, where it is what is trained: use "
                f"--trainable {name}, and leave out --method."
            )

    def _check(self, method: Method, recipe: Recipe, engine: str, use: Use) -> None:
        if method.name not in self.able():
            raise InputError(
                f"method {method.name!r} is not for task {self.name!r}, only "
                f"{', '.join(self.able())}; see --method."
            )
        if not method.needs <= use.offers:
            needs = "gradients" if GRADIENT in method.needs else "what this engine has not"
            raise InputError(
                f"method {method.name!r} needs {needs}; runtime {engine!r} only runs "
                "forward. Use --method zo, or --runtime torch with the model folder."
            )
        if recipe.preset != "default" and (method.name, recipe.preset) not in self.defaults:
            raise InputError(self._no_preset(method, recipe.preset))
        for name in unread(method.name, recipe):
            able = ", ".join(one for one in readers_of(name) if one in self.able())
            if not able:
                continue  # a key of the task itself, whose name methods of other tasks have, too
            raise InputError(
                f"{name} is not read by method {method.name!r}, only by {able}; leave it out."
            )

    def _check_selection(self, selection: Selection, engine: str, use: Use) -> None:
        if selection.needs <= use.offers:
            return
        able = [one.name for one in selections.all().values() if one.needs <= use.offers]
        instead = f"use {', '.join(able)}, or leave it out" if able else "leave it out"
        raise InputError(
            f"--batch-selection {selection.name} is not for task {self.name!r} on runtime "
            f"{engine!r}; {instead}."
        )

    def _no_preset(self, method: Method, preset: str) -> str:
        """Return why a preset cannot be taken."""
        owners = [m.name for m in methods.all().values() if preset in m.presets]
        if not owners:
            known = ["default", *(p for m in methods.all().values() for p in m.presets)]
            return f"preset {preset!r} is not known; {nearest(preset, known)}."
        if method.name not in owners:
            flag = f"--method {owners[0]}"
            return (
                f"preset {preset!r} is of {flag}, not of {method.name}; use that, or leave it out."
            )
        return f"preset {preset!r} is not for task {self.name!r}; leave it out."

    def usual(self, name: str) -> Any:
        """Return the default of a key by the method that `auto` takes; None: it has none."""
        return self._defaults(methods.get(self.auto), "default").get(name)

    def differing(
        self, some: Collection[tuple[str, str]], others: Collection[tuple[str, str]]
    ) -> set[str]:
        """Return the keys whose default by one of some is not that by each of others.

        Args:
          some, others: methods, each with a preset.
        """

        def usual(name: str, preset: str) -> dict[str, Any]:
            learned = {**self.pretrained.get("*", {}), **self.pretrained.get(name, {})}
            before = learned if preset == "default" else {}
            return {**self._defaults(methods.get(name), preset), **before}

        pairs = [(usual(*one), usual(*other)) for one in some for other in others]
        return {
            key for own, other in pairs for key in {*own, *other} if own.get(key) != other.get(key)
        }

    def _defaults(self, method: Method, preset: str) -> dict[str, Any]:
        return {
            **self.defaults.get(("*", "default"), {}),
            **method.defaults,
            **self.defaults.get((method.name, preset), {}),
        }


def unread(method: str, recipe: Recipe) -> list[str]:
    """Return the keys that a recipe sets, that some methods read and this one does not."""
    found = {name: readers_of(name) for name in set_keys(recipe)}
    return [name for name, readers in found.items() if readers and method not in readers]


def readers_of(name: str) -> list[str]:
    """Return the methods that read a key that not every method reads; none for all other keys."""
    every = methods.all().values()
    return [m.name for m in every if name in m.reads or name in (key.name for key in m.keys)]


def _options(method: Method, recipe: Recipe) -> dict[str, Any]:
    """Return the values of the keys that method, selection and schedule declare themselves.

    Raises:
      InputError: one is set that none of them declares.
    """
    chosen: list[Method | Selection | Schedule] = [method]
    if recipe.batch_selection is not None:
        chosen.append(selections.get(recipe.batch_selection))
    if recipe.block_schedule is not None:
        chosen.append(schedules.get(recipe.block_schedule))
    found: dict[str, Any] = {}
    for record in chosen:
        for key in record.keys:
            value = record.defaults.get(key.name, key.default)
            found[key.name] = recipe.options.get(key.name, value)
    for name in recipe.options:
        if name not in found:
            raise InputError(
                f"{name} is not read by {', '.join(record.name for record in chosen)}; leave it "
                "out."
            )
    return found


def _own_keys(method: Method) -> set[str]:
    """Return the keys that no method reads that needs anything else."""
    others = (m.reads for m in methods.all().values() if m.needs != method.needs)
    return set(method.reads).difference(*others)
