"""The public names, as type checkers and editors see them."""

from typing import Any

from edge_train import estimators as estimators
from edge_train import optim as optim
from edge_train import runtimes as runtimes
from edge_train.api.commands import export as export
from edge_train.api.commands import generate as generate
from edge_train.api.commands import plan as plan
from edge_train.api.fitting import fit as fit
from edge_train.api.running import Run as Run
from edge_train.api.running import resume as resume
from edge_train.api.running import run as run
from edge_train.errors import EdgeTrainError as EdgeTrainError
from edge_train.errors import InputError as InputError
from edge_train.errors import ModelError as ModelError
from edge_train.errors import OutOfMemory as OutOfMemory
from edge_train.errors import RunFolderError as RunFolderError
from edge_train.errors import TrainingStopped as TrainingStopped
from edge_train.tasks.classify.recipe import ClassifyRecipe as ClassifyRecipe
from edge_train.tasks.images.recipe import ImagesRecipe as ImagesRecipe
from edge_train.tasks.language_model.recipe import LanguageModelRecipe as LanguageModelRecipe
from edge_train.tasks.network.recipe import NetworkRecipe as NetworkRecipe
from edge_train.tasks.personalize.recipe import PersonalizeRecipe as PersonalizeRecipe
from edge_train.tasks.retrieve.recipe import RetrieveRecipe as RetrieveRecipe

__all__: list[str]
__version__: str

def public(name: str) -> Any: ...
