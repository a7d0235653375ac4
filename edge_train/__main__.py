"""Let `python -m edge_train` be the `edge-train` command."""

import sys

from edge_train.entry import main

sys.exit(main())
