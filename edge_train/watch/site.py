"""What stands at which address of the page."""

import json
import os
import re
from typing import Any

from edge_train.watch.gate import Gate
from edge_train.watch.http import REPORT_POLICY, Answer, Refused, Request, refusal
from edge_train.watch.runs import Runs, is_picture

_HERE = os.path.dirname(os.path.abspath(__file__))
_ASSETS = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_LOGIN = ("login.html", "text/html; charset=utf-8")
_RUN = re.compile(r"/run/([^/]+)/(data|stop|resume|report\.html|samples/([^/]+))")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})|%")


class Site:
    """Answers requests about the runs of a folder; `gate` judges them first."""

    def __init__(self, runs: Runs, gate: Gate) -> None:
        self._runs, self._gate = runs, gate
        self.refused = 0  # requests that were

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request; what is refused is a sentence."""
        try:
            self._gate.check(request)
            return self._answer(request)
        except Refused as no:
            self.refused += 1
            return refusal(no.status, str(no))

    def _answer(self, request: Request) -> Answer:
        method, path = request.method, request.path
        if (method, path) == ("POST", "/login"):
            return self._gate.log_in(request)
        if (method, path) == ("GET", "/page.css"):  # of the page that asks for the password, too
            return _asset(*_ASSETS[path])
        if not self._gate.knows(request):
            if (method, path) == ("GET", "/"):
                return _asset(*_LOGIN)._replace(status=401)
            raise Refused(401, "give the password first, at /.")
        if method == "GET" and path in _ASSETS:
            return _asset(*_ASSETS[path])
        if (method, path) == ("GET", "/runs"):
            return _json(
                {"root": self._runs.root, "token": self._gate.token, "runs": self._runs.rows()}
            )
        found = _RUN.fullmatch(path)
        if found is None:
            raise Refused(404, "there is nothing at this address.")
        return self._of_run(method, decoded(found[1]), found[2], found[3])

    def _of_run(self, method: str, name: str, what: str, picture: str | None) -> Answer:
        if method == "POST" and what in ("stop", "resume"):
            if what == "stop":
                self._runs.stop(name)
            else:
                self._runs.resume(name)
            return _json({})
        if method == "GET" and what == "data":
            return _json(self._runs.one(name))
        if method == "GET" and what == "report.html":
            file, size = self._runs.open(name, what)
            headers = {"Content-Security-Policy": REPORT_POLICY}
            kind = "text/html; charset=utf-8"
            return Answer(200, kind, headers=headers, file=file, size=size)
        if method == "GET" and picture is not None and is_picture(picture):
            file, size = self._runs.open(name, "samples", picture)
            return Answer(200, "image/png", file=file, size=size)
        raise Refused(404, "there is nothing at this address.")


def decoded(text: str) -> str:
    """Return a part of an address without its escapes.

    Raises:
      Refused: it is no text then.

    >>> decoded("my%20dog"), decoded("%2e%2e")
    ('my dog', '..')
    """

    def one(found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            raise Refused(400, "this address cannot be read.")
        return bytes([int(found[1], 16)])

    try:
        return _ESCAPE.sub(one, text.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise Refused(400, "this address cannot be read.") from None


def _asset(name: str, kind: str) -> Answer:
    with open(os.path.join(_HERE, name), "rb") as file:
        return Answer(200, kind, file.read())


def _json(content: Any) -> Answer:
    return Answer(200, "application/json", json.dumps(content).encode())
