"""One request of HTTP and its answer, as strict as a local page allows.

The module `http.server` alone holds 8 MB (it loads `ssl` and `email`), which is the whole budget of
the watching process; a page of our own needs GET, POST, and no more. One request a connection.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

MOST_HEAD_BYTES = 8192
MOST_BODY_BYTES = 256
_MOST_PATH = 1024  # characters
_LINE = re.compile(r"([A-Z]{1,10}) (\S{1,8000}) HTTP/1\.[01]")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e]*?)[ \t]*")
_SINGLE = ("host", "content-length", "origin", "cookie", "x-token")
_REASONS = {
    200: "OK",
    303: "See Other",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
}
# Nothing is loaded from elsewhere, framed by others, guessed, or kept by a cache.
_ALWAYS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Connection": "close",
}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A report may come from anywhere: no script of it runs, and its origin is not that of the page.
REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class Request(NamedTuple):
    """What was asked; names of headers in small letters."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    """What is answered: text or, with `file`, the first `size` bytes of an open file."""

    status: int
    kind: str
    body: bytes = b""
    headers: Mapping[str, str] = {}
    file: int | None = None
    size: int = 0


class Refused(Exception):
    """A request that is not answered; the status, and a sentence for people."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def refusal(status: int, text: str) -> Answer:
    """Return the answer that says why nothing else is answered."""
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())


def parse(received: bytes) -> Request | None:
    """Return the request, None while more of it must come.

    Raises:
      Refused: it is no request, or larger than any that the page sends.
    """
    head, end, body = received.partition(b"\r\n\r\n")
    if len(head) > MOST_HEAD_BYTES:
        raise Refused(431, "the head of this request is too large.")
    if not end:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    found = _LINE.fullmatch(first)
    if found is None:
        raise Refused(400, "this is no request of HTTP/1.1.")
    method, path = found.groups()
    if len(path) > _MOST_PATH:
        raise Refused(414, "this address is too long.")
    headers = _headers(lines)
    if method not in ("GET", "POST"):
        raise Refused(405, "only GET and POST are answered.")
    size = _body_size(method, headers)
    if len(body) > size:
        raise Refused(400, "one request a connection.")
    return Request(method, path, headers, body) if len(body) == size else None


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise Refused(400, "a header of this request cannot be read.")
        name = found[1].lower()
        if name in headers and name in _SINGLE:
            raise Refused(400, f"the header {name} is there twice.")
        headers[name] = found[2]
    return headers


def _body_size(method: str, headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise Refused(400, "a body in pieces is not read.")
    said = headers.get("content-length", "0")
    if not (said.isascii() and said.isdigit() and len(said) < 20):
        raise Refused(400, "the length of this request is no number.")
    size = int(said)
    if size > MOST_BODY_BYTES or (size and method == "GET"):
        raise Refused(413, "this request is too large.")
    return size


def head_of(answer: Answer) -> bytes:
    """Return everything of an answer that stands before its body."""
    size = answer.size if answer.file is not None else len(answer.body)
    lines = [f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}"]
    headers = {"Content-Security-Policy": PAGE_POLICY, **_ALWAYS, **answer.headers}
    headers |= {"Content-Type": answer.kind, "Content-Length": str(size)}
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
