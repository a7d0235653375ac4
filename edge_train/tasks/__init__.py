"""What `--task` names: one folder each; the place that turns a task's name into its job."""

from edge_train.recipe import Recipe
from edge_train.tasks.job import Job


def open_job(recipe: Recipe) -> Job:
    """Return the job that a recipe describes: every word checked, every default filled in.

    Raises:
      InputError, ModelError: a word, size or model that cannot be used.
    """
    if recipe.task == "classify":
        from edge_train.tasks.classify.job import ClassifyTextJob

        return ClassifyTextJob(recipe)
    if recipe.task == "language-model":
        from edge_train.tasks.language_model.job import LanguageModelJob

        return LanguageModelJob(recipe)
    if recipe.task == "network":
        from edge_train.tasks.network.job import NetworkJob

        return NetworkJob(recipe)
    from edge_train.tasks.personalize.job import PersonalizeJob

    return PersonalizeJob(recipe)
