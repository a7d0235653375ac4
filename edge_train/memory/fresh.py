"""A Python process of ours that imports what this one would, and nothing from the current folder.

`python -m` and `python -c` put the current folder first on the path, so a `numpy.py` that lies
there would be run: in a downloaded model's folder, by whoever made it. Standard library only.
"""

from __future__ import annotations

import sys

_ROOT = __file__.rpartition("edge_train")[0].rstrip("/\\") or "/"  # where this package lies

_WITHOUT = "[entry for entry in sys.path[1:] if entry]"

TYPE_CHECKING = False  # importing typing would add half a megabyte to the parent
if TYPE_CHECKING:
    from collections.abc import Sequence


def fresh(code: str, python: str = "") -> tuple[str, ...]:
    """Return the words after `python` that run some code of ours; its `sys` is imported.

    Python 3.10 has no `-P`, so the path is set before the first import that would look there. The
    very package that runs here is imported, also out of a checkout that nobody installed; only
    then is the path that of this process, without the current folder.

    Args:
      python: another interpreter than ours, which keeps its own path.
    """
    own = python in ("", sys.executable)
    path = repr([entry for entry in sys.path if entry not in ("", ".")]) if own else _WITHOUT
    start = f"import sys; sys.path.insert(0, {_ROOT!r}); import edge_train; sys.path[:] = {path}; "
    return ("-c", start + code)


def command(words: Sequence[str], python: str = "") -> list[str]:
    """Return the command line of `edge-train WORDS` in a fresh process of an interpreter."""
    code = "from edge_train.__main__ import main; sys.exit(main())"
    return [python or sys.executable, *fresh(code, python), *words]


def module(name: str, words: Sequence[str], python: str = "") -> list[str]:
    """Return the command line of `python -m NAME WORDS` in a fresh process of an interpreter."""
    code = f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    return [python or sys.executable, *fresh(code, python), *words]
