"""Networks of timm's files as functions of their weights: no code of timm, one file a family."""

from collections.abc import Callable, Mapping, Sequence

from edge_train.formats.timm_folder import TimmFolder
from edge_train.runtimes.torch.timm_networks import convnext, mobile, resnet, transformer
from edge_train.runtimes.torch.timm_networks.step import Step

# names of all weights, and the folder -> steps from pixels to features
FAMILIES: Mapping[str, Callable[[Sequence[str], TimmFolder], Sequence[Step]]] = {
    "resnet": lambda names, _: resnet.steps(names),
    "efficientnet": lambda names, folder: mobile.efficientnet(names, folder.architecture),
    "mobilenetv2": lambda names, folder: mobile.mobilenet_v2(names, folder.architecture),
    "mobilenetv3_large": lambda names, folder: mobile.mobilenet_v3_large(
        names, folder.architecture
    ),
    "mobilenetv3_small": lambda names, folder: mobile.mobilenet_v3_small(
        names, folder.architecture
    ),
    "vit": lambda names, folder: transformer.steps(names, folder.pool),
    "convnext": lambda names, _: convnext.steps(names),
}
