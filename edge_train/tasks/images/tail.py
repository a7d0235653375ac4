"""The last blocks of a backbone as a stage in front of the head, where they are trained."""

from collections.abc import Sequence

from edge_train.registry import load
from edge_train.tasks.images.backbone import Backbone
from edge_train.tasks.images.objective import Standard
from edge_train.tasks.images.stage import HeadStage


def tail_of(backbone: Backbone, standard: Standard | None) -> Sequence[HeadStage]:
    """Return no stage of a frozen backbone, or one of its last blocks.

    Args:
      standard: of the rows that it will be given; None: for shapes only.

    Raises:
      InputError, ModelError: the backbone cannot be used.
    """
    if not backbone.trained:
        return ()
    opener = load("edge_train.runtimes.torch.picture_tail:PictureTail")
    if standard is None:
        return (opener(backbone.source, backbone.trained),)
    return (opener(backbone.source, backbone.trained, standard.mean, standard.scale),)
