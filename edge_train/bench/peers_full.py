"""What `edge-train bench peers` trains all weights with: two rules here, and their authors' code.

The packages import bitsandbytes, made for graphics cards, when they are imported whole; the
module that is wanted alone does not.
"""

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

RANK, REFRESH = 64, 200
SCALES = {"galore": 0.25, "apollo": 1.0}
# name of a contestant -> package, module, class, what its group says beside rank, gap and scale
AUTHORS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "galore-torch": ("galore_torch", "adamw", "AdamW", {"proj_type": "std"}),
    "apollo-torch": (
        "apollo_torch",
        "apollo",
        "AdamW",
        {"proj": "random", "proj_type": "std", "scale_type": "channel"},
    ),
}


def is_installed(contestant: str) -> bool:
    """Return whether the authors' package of a contestant is there."""
    return find_spec(AUTHORS[contestant][0]) is not None


def make_optimizer(contestant: str, network: Any, rate: float) -> Any:
    """Return the authors' optimizer of a network of transformers: matrices of layers projected."""
    package, module, name, own = AUTHORS[contestant]
    kind: Callable[..., Any] = getattr(_alone(package, module), name)
    inside = {id(p) for p in _matrices(network)}
    others = [p for p in network.parameters() if id(p) not in inside]
    projected = {
        "params": list(_matrices(network)),
        "rank": RANK,
        "update_proj_gap": REFRESH,
        "scale": SCALES[contestant.partition("-")[0]],
        **own,
    }
    groups = [{"params": others}, projected]
    return kind(groups, lr=rate, weight_decay=0.0, eps=1e-8, no_deprecation_warning=True)


def _matrices(network: Any) -> Iterator[Any]:
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2 and ".layers." in name:
            yield parameter


def _alone(package: str, module: str) -> Any:
    """Import a module of a package without running the package's own first lines."""
    spec = find_spec(package)
    assert spec is not None
    stand_in = types.ModuleType(package)
    stand_in.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[package] = stand_in
    return importlib.import_module(f"{package}.{module}")
