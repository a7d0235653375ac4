"""What commands of tasks ask of the layers above them: to train a run, to write a report."""

from dataclasses import replace
from pathlib import Path

from edge_train.recipe import Recipe
from edge_train.records.folder import RunFolder


class Above:
    """A `House`; what it needs is imported when it is asked."""

    def train(self, recipe: Recipe, folder: Path) -> int:
        """Train a recipe in a folder, or go on with the run there; return the exit status."""
        from edge_train.run import session
        from edge_train.run.observer import Bar

        if RunFolder(folder).recipe.is_file():
            return session.resume(folder, {}, Bar())
        return session.run(replace(recipe, out=str(folder)), Bar())

    def report(self, run: Path) -> Path:
        """Write the report of a run anew; return its page."""
        from edge_train.run.ending import write_report

        return write_report(run)
