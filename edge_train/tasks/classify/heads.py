"""How a classifier's head gets its size, and what its outputs are called."""

import json
from collections.abc import Mapping, Sequence

from edge_train.errors import InputError
from edge_train.formats.classifier_folder import ClassifierFolder
from edge_train.formats.training_artifact import TrainingArtifact
from edge_train.tasks.classify.tokenizer import TextTokenizer

Model = ClassifierFolder | TrainingArtifact

LABELS = "labels"  # in the metadata of a run's examples
_SHOWN = 4  # layers named in a notice


def check_new_head(model: Model, *, new_head: bool) -> None:
    """Refuse a new head on an artifact, whose graphs have one of a fixed size.

    Raises:
      InputError: as described.
    """
    if new_head and not isinstance(model, ClassifierFolder):
        raise InputError(
            f"new_head is not for artifact {model.path}, whose graphs have {len(model.labels)} "
            "outputs; name the model folder that it was made of."
        )


def names_of(model: Model, *, new_head: bool) -> tuple[str, ...]:
    """Return what the outputs are called, none where the data decides how many there are."""
    if isinstance(model, ClassifierFolder) and (new_head or not model.has_head):
        return ()
    return model.labels


def with_labels(model: Model, labels: Sequence[str], *, new_head: bool) -> Model:
    """Return the model with an output for each label of the data, if it has no outputs yet."""
    if isinstance(model, ClassifierFolder) and (new_head or not model.has_head):
        return model.with_labels(labels)
    return model


def labels_of(metadata: Mapping[str, str], model: Model) -> tuple[str, ...]:
    """Return the labels of a run's examples; a run of earlier code kept none beside them.

    Raises:
      ValueError: they are not readable.
    """
    if LABELS not in metadata:
        return model.labels
    labels = json.loads(metadata[LABELS])
    if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
        raise ValueError("its labels are no list of names")
    return tuple(labels)


def notice_of_new(model: ClassifierFolder, names: Sequence[str], seed: int) -> tuple[str, ...]:
    """Return what is said of layers that no file holds: those on top, and a pooler below them."""
    if not names:
        return ()
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    shown = ", ".join(layers[:_SHOWN])
    more = f" and {len(layers) - _SHOWN} more" if len(layers) > _SHOWN else ""
    return (
        f"{shown}{more}: made new by seed {seed} for the {len(model.labels)} classes of the data, "
        f"because {model.path} holds none for them",
    )


def check_end_token(model: Model, tokenizer: TextTokenizer, text: str) -> None:
    """Refuse a network that classifies by the end token, if its tokenizer adds none.

    Raises:
      InputError: as described: BART and T5 read the outputs at the last end token of a text.
    """
    if not isinstance(model, ClassifierFolder) or not model.config.get("is_encoder_decoder"):
        return
    end = model.config.get("eos_token_id")
    if isinstance(end, int) and end not in tokenizer.backend.encode(text).ids:
        raise InputError(
            f"{model.path}: a {model.config['model_type']!r} tells classes apart at the end token "
            f"(id {end}) of a text, but this tokenizer adds none; copy the tokenizer.json that was "
            "published with the model, whose template adds it."
        )
