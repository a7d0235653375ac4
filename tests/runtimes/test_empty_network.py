"""A network is described before its weights are read, and that takes no memory."""

import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.process

# The table of words alone would be 1 GB; the wall stands 0.3 GB above what the libraries hold.
BUILT_UNDER_A_WALL = """
import resource
from pathlib import Path
from transformers import AutoModelForCausalLM, LlamaConfig
from edge_train.runtimes.torch.empty_network import empty_network

shape = {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192}
heads = {"num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 8}
small = LlamaConfig(vocab_size=8, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
empty_network(AutoModelForCausalLM, small, Path("small"), "language model", None)
[held] = [line for line in Path("/proc/self/status").open() if line.startswith("VmData")]
limit = int(held.split()[1]) * 1024 + 300_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
network = empty_network(
    AutoModelForCausalLM, LlamaConfig(**shape, **heads), Path("large"), "language model", None
)
print({str(p.device) for p in network.parameters()}, {str(b.device) for b in network.buffers()})
"""


def test_a_table_larger_than_the_cap_is_described_under_it():
    done = subprocess.run(
        [sys.executable, "-c", BUILT_UNDER_A_WALL], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "{'meta'} {'cpu'}", done.stderr[-500:]
