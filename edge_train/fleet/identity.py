"""Who a device is: what it has in common with all others, and what is its own."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from edge_train.fleet.averaging import weight_of

# Keys of a recipe in which devices may differ: where things lie, and what computes no number.
PRIVATE = (
    *("data", "photos", "out", "model", "start", "caption", "captions"),
    *("threads", "batch_limit", "lean", "preview_every"),
    *("cap_bytes", "host_cap_bytes", "device", "when"),
)
MIXED = ("runtime", "quant", "dtype")  # and in these, where a fleet is mixed


def identity_of(record: Mapping[str, Any], exchange: str) -> dict[str, Any]:
    """Return what a device says of itself: in `must` it is like all others, `about` is its own.

    With adapters a round of the fleet is all steps up to an evaluation.

    Args:
      record: the first of its journal.
      exchange: "slopes" or "adapters".
    """
    facts, recipe = record["facts"], record["recipe"]["values"]
    shared = {n: value for n, value in recipe.items() if n not in (*PRIVATE, *MIXED)}
    text = json.dumps(shared, sort_keys=True, separators=(",", ":"))
    steps, every = recipe["steps"], recipe["evaluate_every"]
    if exchange == "adapters":
        steps, every = -(-steps // every), 1
    return {
        "must": {
            "edge-train": facts["versions"]["edge-train"],
            "rules": record["rules"],
            "exchange": exchange,
            "recipe": hashlib.sha256(text.encode()).hexdigest(),
            "model_sha256": facts["model_sha256"],
            "runtime": facts["runtime"],
            "dtype": facts["dtype"],
            "quant": facts["quant"],
            "start_sha256": record["start_sha256"],
        },
        "about": {
            "task": facts["task"],
            "method": facts["method"],
            "seed": facts["seed"],
            "steps": steps,
            "evaluate_every": every,
            "patience": recipe.get("patience") or 0,
            "best_margin": record.get("best_margin", 0.0),
            "weight": weight_of(record.get("slope_check")),
            "state_bytes": record["state_bytes"],
            "device": facts["device"],
            "versions": facts["versions"],
        },
    }
