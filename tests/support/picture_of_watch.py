"""Draw the page of `edge-train watch`: `picture_of_watch.py RUNS OUT.png [WIDTH [dark]]`.

With `PYTHONPATH=.:tests/support`; needs Chromium.
"""

import sys
from pathlib import Path

from browser import Browser
from watched_page import Page


def main(runs, out, width="1280", scheme="light"):
    """Write what a browser shows of the newest run in a folder."""
    with Page(runs) as page, Browser(int(width), 900, dark=scheme == "dark") as browser:
        browser.open(f"http://127.0.0.1:{page.port}/")
        browser.wait_for("document.querySelector('h2') !== null")
        browser.wait_for("[...document.images].every((one) => one.complete)")
        browser.picture(Path(out))
        assert browser.problems == []


if __name__ == "__main__":
    main(*sys.argv[1:])
