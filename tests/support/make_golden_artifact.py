"""Write tests/golden/artifact-v1 again: `python tests/make_golden_artifact.py`, desk environment.

Only for a change of the format before its version is released; a released one stays as it is.
"""

import os
import shutil
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "artifact-v1"


def main() -> None:
    # Late: the fresh process that measures memory loads this file too.
    from tiny_models import make_tiny_model

    from edge_train.tasks.personalize.export import export

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the manifest names the model as it was given
        make_tiny_model(Path("small"), widths=(8,), text_width=16)
        shutil.rmtree(GOLDEN, ignore_errors=True)
        export("./small", GOLDEN, quant="int8", photos=None, resolution=None, threads=1, say=print)


if __name__ == "__main__":
    main()
