"""A run on chats, killed at random instants, beside one that nobody disturbed."""

import json
import random

from gguf_models import plain_llama
from running import kill, run_to_the_end, steps_in
from safetensors.numpy import load_file

from edge_train.optim.adam8bit import SMALLEST

STEPS = 40
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
ADAPTER = "adapter/adapter_model.safetensors"


def words_of(folder, engine):
    """Return the words of a run, on chats and a GGUF file that are written to a folder.

    Moments of one of its blocks take 8 bits, whose rounding at random is of the count of steps.
    """
    lines = []
    for number in range(60):
        asked = {"role": "user", "content": f"the hat {number}"}
        told = {"role": "assistant", "content": f"and tin {number % 3}"}
        lines.append(json.dumps({"messages": [asked, told]}))
    (folder / "chats.jsonl").write_text("\n".join(lines))
    (folder / "a.gguf").write_bytes(plain_llama(True, 128, tokenizer__chat_template=TEMPLATE))
    found = ["run", folder / "chats.jsonl", "--task", "language-model", "--runtime", engine]
    found += ["--model", folder / "a.gguf", "--method", "adamw8bit", "--rank", "32"]
    found += ["--steps", STEPS, "--samples", "2", "--length", "48", "--evaluate-every", "10"]
    return (*found, "--evaluation-samples", "2", "--threads", "1")


def kill_and_compare(folder, engine, kills):
    """Kill a run some times and let it end; its adapter has the bits of an undisturbed run's."""
    words, draws = words_of(folder, engine), random.Random(0)
    whole, out, landed = folder / "whole", folder / "run", []
    run_to_the_end(*words, "--out", whole, out=whole)
    for _ in range(kills):
        assert kill((*words, "--out", out), out, draws.randrange(4, 10), draws.uniform(0, 0.02))
        landed.append(steps_in(out))
    assert landed == sorted(set(landed)) and landed[0] > 0 and landed[-1] < STEPS
    run_to_the_end("run", "--resume", out, out=out)
    assert steps_in(out) == steps_in(whole) == STEPS
    assert (out / ADAPTER).read_bytes() == (whole / ADAPTER).read_bytes()
    learned = load_file(out / ADAPTER)
    assert all(value.any() for key, value in learned.items() if "lora_B" in key)
    assert max(value.size for value in learned.values()) >= SMALLEST, "no moments in 8 bits"
