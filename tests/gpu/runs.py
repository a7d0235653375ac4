"""Checks of whole runs: every rule, kill and resume to the same bits, the cap, a shortage."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import made_models
from running import Command, run_to_the_end

_ROUNDED = 0.02  # of a loss after two steps: float32 in other orders, through roundings to few bits
_LEAST_CONTEXT = 100_000_000  # a context alone is more


def _language(root: Path, *more: Any) -> list[Any]:
    model, text = root / "model", root / "text.txt"
    if not model.is_dir():
        made_models.language(root)
    found = ["run", "--task", "language-model", "--data", text, "--model", model, "--json"]
    return [*found, "--length", "32", "--samples", "2", *more]


def _report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def rules(root: Path, device: str) -> dict[str, Any]:
    """Two steps by every update rule; the loss is that of the host."""
    from edge_train import cli
    from edge_train.methods import rules as known

    found: dict[str, Any] = {}
    for name, rule in known.all().items():
        if name == "lora":
            continue
        ends = []
        for where in (device, "cpu"):
            out = root / f"{name}-{where}-{len(ends)}"
            words = _language(root, "--method", name, "--steps", "2", "--dtype", "float32")
            words += ["--rank", "4"] if "rank" in rule.reads else []
            words += ["--device", where, "--out", out, "--threads", "2"]
            status = cli.main([str(word) for word in words])
            assert status == 0, f"{name} on {where} ended with {status}"
            report = _report(out)
            assert report["device"] == where, report["device"]
            ends.append(report["eval"]["last"])
        off = abs(ends[0] - ends[1]) / ends[1]
        assert off <= _ROUNDED, f"{name}: {ends[0]} on {device}, {ends[1]} on the host"
        found[name] = off
    return found


def _resumed(root: Path, name: str, words: list[Any]) -> dict[str, Any]:
    """Kill a run after some steps and go on; it ends as one that was never killed."""
    whole, killed = root / f"{name}-whole", root / f"{name}-killed"
    run_to_the_end(*words, "--out", whole, out=whole)
    with Command(*words, "--out", killed, out=killed) as command:
        command.wait_for_steps(3)
        command.send(signal.SIGKILL)
        command.wait()
    run_to_the_end("run", "--resume", killed, "--json", out=killed)
    first, second = _report(whole), _report(killed)
    assert first["eval"] == second["eval"], (first["eval"], second["eval"])
    assert first["device"] == second["device"]
    return {"device": second["device"], "dtype": second["dtype"], "eval": second["eval"]["last"]}


def resume_all(root: Path, device: str) -> dict[str, Any]:
    """All weights of a language model."""
    return _resumed(root, "all", _language(root, "--device", device, "--steps", "20"))


def resume_adapter(root: Path, device: str) -> dict[str, Any]:
    """An adapter on a base in int4."""
    words = ("--device", device, "--steps", "20", "--trainable", "lora", "--quant", "int4")
    return _resumed(root, "lora", _language(root, *words))


def resume_zo(root: Path, device: str) -> dict[str, Any]:
    """Forward passes alone: directions come from their keys, so a journal makes the same bits."""
    words = ("--device", device, "--steps", "20", "--method", "zo", "--epsilon", "0.01")
    return _resumed(root, "zo", _language(root, *words))


def resume_classifier(root: Path, device: str) -> dict[str, Any]:
    """A classifier of texts."""
    model, data = made_models.classifier(root)
    words = ["run", "--task", "classify", "--data", data, "--model", model, "--json"]
    return _resumed(root, "classify", [*words, "--device", device, "--steps", "20"])


def resume_word(root: Path, device: str) -> dict[str, Any]:
    """The embedded Stable Diffusion and its photos."""
    words = ["run", "--device", device, "--steps", "8", "--method", "adamw", "--json"]
    return _resumed(root, "word", words)


def cap(root: Path, device: str) -> dict[str, Any]:
    """What is held is measured and below the cap; a cap that is too small is one sentence."""
    name = "--mem"
    out = root / "held"
    words = _language(root, "--device", device, "--steps", "4", "--trainable", "lora")
    run_to_the_end(*words, name, "4GB", "--out", out, out=out)
    held = _report(out)["measured_peak_bytes"]
    assert _LEAST_CONTEXT < held <= 4_000_000_000, held
    found: dict[str, Any] = {"held_bytes": held}
    for share in (0.02, 0.5, 0.9, 0.97):
        given, out = int(share * held), root / f"share-{share}"
        with Command(*words, name, f"{given}", "--out", out, out=out) as command:
            status = command.wait()
        assert status in (0, 2, 3), command.err
        assert "Traceback" not in command.err, command.err
        if status:
            assert re.search(r"--mem|--device cpu", command.err), command.err
        elif (out / "report.json").is_file():
            assert _report(out)["measured_peak_bytes"] <= given
        found[f"{given} bytes"] = status
    return found


def allocator(root: Path, device: str) -> dict[str, Any]:
    """The allocator stops at the cap, the driver counts what it holds; kernels are as estimated."""
    if device != "cuda":
        return {"skipped": "a processor has no allocator of a card"}
    import torch

    from edge_train.memory.gpu import open_gpu_memory
    from edge_train.memory.shortage import is_on_gpu, is_shortage
    from edge_train.runtimes.torch.card_memory import _KERNEL_BYTES, context_bytes, limit_memory

    driver = open_gpu_memory()
    card = torch.device("cuda")
    context = context_bytes(card)
    limit_memory(card, 2_000_000_000)
    kept = torch.empty(1_000_000_000, dtype=torch.uint8, device=card)
    try:
        torch.empty(1_000_000_000, dtype=torch.uint8, device=card)
    except torch.OutOfMemoryError as error:
        assert is_shortage(error) and is_on_gpu(error), str(error)
    else:
        raise AssertionError("the allocator gave more than the cap")
    for size in (64, 512):  # products, a convolution and an SVD load their kernels
        values = torch.randn(size, size, device=card)
        (values @ values).softmax(1).sum().item()
        (values.bfloat16() @ values.bfloat16()).sum().item()
    torch.nn.functional.conv2d(
        values[None, None], torch.randn(4, 1, 3, 3, device=card)
    ).sum().item()
    held = driver.sample() if driver is not None else 0
    kernels = max(held - context - torch.cuda.memory_reserved(card), 0)
    assert driver is None or held >= len(kept), held
    return {
        "context_bytes": context,
        "kernel_bytes": kernels,
        "kernels_estimated_bytes": _KERNEL_BYTES,
        "counted_by": driver.source if driver is not None else "torch alone",
    }
