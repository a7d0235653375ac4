"""Train a module of your own with your own loss, by any method; go on with it after a stop."""

import torch

import edge_train as et


def made():
    """Return a module, its loss and its batches: what `et.fit` takes, here or by name."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 32, 8, generator=draw)
    batches = [(x, x.sum(dim=1, keepdim=True)) for x in inputs]
    module = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    return module, lambda module, batch: ((module(batch[0]) - batch[1]) ** 2).mean(), batches


def main(steps=200, mem="4GB", method="adamw", out=None):
    module, loss, batches = made()
    run = et.fit(module, loss, batches, method=method, mem=mem, steps=steps, out=out)
    more, *_ = made()  # after a restart: its numbers come from the run
    run = et.fit(more, loss, batches, resume=run.folder, steps=2 * steps)
    losses = run.report["eval"]
    print(f"{run.report['steps']} steps: loss {losses['first']:.3f} -> {losses['best']:.3f}")
    return run.outputs["learned"]  # module.load_state_dict(safetensors.torch.load_file(...))


if __name__ == "__main__":
    print(main())
