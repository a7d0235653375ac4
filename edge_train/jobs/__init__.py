"""What a run needs besides the loop, per task; the place that turns a task's name into its job."""

from edge_train.jobs.protocol import Job
from edge_train.recipe import Recipe


def open_job(recipe: Recipe) -> Job:
    """Return the job that a recipe describes: every word checked, every default filled in.

    Raises:
      InputError, ModelError: a word, size or model that cannot be used.
    """
    if recipe.task == "classify":
        from edge_train.jobs.classify_text import ClassifyTextJob

        return ClassifyTextJob(recipe)
    if recipe.task == "language-model":
        from edge_train.jobs.language_model import LanguageModelJob

        return LanguageModelJob(recipe)
    if recipe.task == "network":
        from edge_train.jobs.small_network import NetworkJob

        return NetworkJob(recipe)
    from edge_train.jobs.personalize import PersonalizeJob

    return PersonalizeJob(recipe)
