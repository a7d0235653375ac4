#!/bin/sh
# Give a base image what every image of edge-train stands on: Python with venv, and a folder /work
# in which any user may write.
set -eu

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    apt-get update
    apt-get install --yes --no-install-recommends python3 python3-venv
    rm -rf /var/lib/apt/lists/*
fi
python3 - <<'PYTHON'
import sys

if sys.version_info < (3, 10):
    found = "%d.%d" % sys.version_info[:2]
    sys.exit("the base image has Python %s; edge-train needs 3.10 or newer: name a newer base image" % found)
PYTHON
install -d -m 1777 /work
