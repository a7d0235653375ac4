"""The engine torch: every task with a model folder, with gradients."""

from edge_train.runtimes.engine import Engine

ENGINES = (
    Engine(
        name="torch",
        says="torch, with gradients; model folders",
        distributions=("torch",),
        beside=("diffusers", "transformers", "optimum-quanto", "peft"),
        gains={"bfloat16": 1.9},
        doctor="edge_train.runtimes.torch.doctor:examine",
    ),
)
