"""Where there is no torch, everything that does not run on it can be imported."""

import importlib
import pkgutil

import edge_train

MAY_BE_MISSING = {"torch", "transformers", "diffusers", "optimum", "peft", "onnx", "onnx_ir"}


def test_what_cannot_be_imported_lacks_a_package_of_the_desk():
    """Who may need one at all, and so not be there, is in `test_layers`."""
    for found in pkgutil.walk_packages(edge_train.__path__, "edge_train."):
        if found.name.endswith("__main__"):  # it would run the command
            continue
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            assert error.name.partition(".")[0] in MAY_BE_MISSING, found.name
