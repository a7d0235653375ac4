"""Weights of small networks in timm's layout, made from their names, and what timm made of them.

    python tests/support/timm_golden.py      # where timm is installed; rewrites the golden file

timm is no dependency: tests read the golden file, tests/golden/timm.json.
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "timm.json"


def weights_of(shapes):
    """Return float32 arrays that follow from their names."""
    found = {}
    for name, shape in shapes.items():
        draw = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("num_batches_tracked"):
            found[name] = np.zeros(shape, np.int64)
        elif name.endswith("running_var"):
            found[name] = draw.uniform(0.5, 1.5, shape).astype(np.float32)
        elif len(shape) < 2:
            center = 0.0 if name.endswith(("bias", "running_mean")) else 1.0
            found[name] = (center + 0.2 * draw.standard_normal(shape)).astype(np.float32)
        else:
            size = 1.4 / np.sqrt(np.prod(shape[1:]))
            found[name] = (size * draw.standard_normal(shape)).astype(np.float32)
    return found


def pixels_of(side):
    """Return pictures (2, side, side, 3) of bytes."""
    draw = np.random.default_rng(side)
    return draw.integers(0, 256, (2, side, side, 3)).astype(np.uint8)


def write_folder(folder, shapes, config, left_out=(), more=()):
    """Write a folder as timm saves it to the hub."""
    from edge_train.formats.tensor_store import save_tensors

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {n: v for n, v in weights_of(shapes).items() if n not in left_out}
    tensors |= {name: np.ones(3, np.float32) for name in more}
    save_tensors(folder / "model.safetensors", tensors, {})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _networks():
    """Yield names and small networks of timm."""
    from timm.models import convnext, efficientnet, mobilenetv3, resnet, vision_transformer

    small = {"num_classes": 3}
    yield (
        "resnet18",
        resnet.ResNet(resnet.BasicBlock, (2, 1, 1, 1), channels=(8, 8, 12, 16), **small),
    )
    yield (
        "resnext50_32x4d",
        resnet.ResNet(
            resnet.Bottleneck,
            (1, 1, 1, 1),
            channels=(8, 8, 8, 8),
            cardinality=2,
            base_width=32,
            **small,
        ),
    )
    lite = efficientnet._gen_efficientnet_lite
    yield "efficientnet_lite0", lite("efficientnet_lite0", 0.2, 0.4, **small)
    yield (
        "tf_efficientnet_lite0",
        lite("tf_efficientnet_lite0", 0.2, 0.4, pad_type="same", bn_eps=1e-3, **small),
    )
    yield (
        "tf_efficientnet_b0",
        efficientnet._gen_efficientnet(
            "tf_efficientnet_b0", 0.2, 0.4, pad_type="same", bn_eps=1e-3, **small
        ),
    )
    yield "mobilenetv2_050", efficientnet._gen_mobilenet_v2("mobilenetv2_050", 0.2, **small)
    third = mobilenetv3._gen_mobilenet_v3
    yield "mobilenetv3_small_050", third("mobilenetv3_small_050", 0.25, **small)
    yield (
        "tf_mobilenetv3_large_075",
        third("tf_mobilenetv3_large_075", 0.25, pad_type="same", bn_eps=1e-3, **small),
    )
    transformer = vision_transformer.VisionTransformer
    sizes = {"img_size": 32, "embed_dim": 64, "num_heads": 1, "mlp_ratio": 1, "depth": 2, **small}
    yield "deit_tiny_patch16_32", transformer(patch_size=16, **sizes)
    yield (
        "vit_small_patch14_reg4_dinov2",
        transformer(patch_size=16, reg_tokens=2, no_embed_class=True, init_values=1e-5, **sizes),
    )
    yield "vit_tiny_patch8_32", transformer(patch_size=8, global_pool="avg", **sizes)
    widths = {"depths": (1, 1, 2, 1), "dims": (8, 8, 12, 16), **small}
    yield "convnext_tiny", convnext.ConvNeXt(**widths)
    yield (
        "convnextv2_atto",
        convnext.ConvNeXt(conv_mlp=True, use_grn=True, ls_init_value=None, **widths),
    )


def main():
    """Write the golden file."""
    import timm
    import torch

    found = {"timm": timm.__version__, "networks": {}}
    for name, network in _networks():
        shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
        values = {key: torch.from_numpy(v) for key, v in weights_of(shapes).items()}
        network.load_state_dict(values)
        network.eval()
        side, mean, deviation = 32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
        pixels = (pixels_of(side) / 255.0 - mean) / deviation
        given = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            features = network.forward_head(network.forward_features(given), pre_logits=True)
        config = {
            "architecture": name,
            "num_classes": 3,
            "num_features": network.num_features,
            "pretrained_cfg": {"input_size": [3, side, side], "mean": mean, "std": deviation},
        }
        if name.startswith(("vit", "deit")):
            config["global_pool"] = network.global_pool
        numbers = [[float(f"{n:.6g}") for n in row] for row in features.tolist()]
        found["networks"][name] = {"config": config, "shapes": shapes, "features": numbers}
    GOLDEN.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    sys.exit(main())
