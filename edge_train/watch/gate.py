"""Who may ask: no site but our own page, and with `--host` nobody without the password.

Against a site that has its name point at this machine (DNS rebinding): a request must name this
machine by address or by a name of its own. Against a site that sends forms here: what changes
something must come from the page (`Origin`) and bring a token that only the page can read.
"""

import binascii
import os
import re
from collections.abc import Callable

from edge_train.watch.http import Answer, Refused, Request, refusal

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that looks like another
_PASSWORD_LENGTH = 14  # of 31 letters: 69 bits
_MOST_SESSIONS = 16
_SESSION_SECONDS = 43_200
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:.]+\]")
_LOOPBACK = re.compile(r"127(?:\.\d{1,3}){3}|\[::1\]|localhost")


class Gate:
    """Judges requests.

    Args:
      host: that the page is offered on, where others than this machine can reach it; None without.
      port: of the page, part of the cookie's name: cookies do not know ports.
      say: is given each password, for the terminal.
    """

    def __init__(self, host: str | None, port: int, say: Callable[[str], None]) -> None:
        self.token = _random()
        self._cookie = f"edge_train_watch_{port}"
        self._say, self._sessions = say, list[str]()
        self._password: str | None = None
        node = os.uname().nodename.lower() if hasattr(os, "uname") else ""
        self._names = {"localhost"}
        self._open = host is not None
        if host is not None:
            self._names |= {host.lower(), node, f"{node}.local"} - {"", ".local"}
            self._next_password()

    def check(self, request: Request) -> None:
        """Refuse what a browser would not send from our page.

        Raises:
          Refused: another site sent it, or it lacks the token.
        """
        host = request.headers.get("host", "").lower()
        if not self._is_ours(re.sub(r":\d{1,5}$", "", host)):
            raise Refused(403, "this machine is not called that; use its address.")
        origin = request.headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise Refused(403, "another site sent this request.")
        if request.method == "POST":
            if origin is None:
                raise Refused(403, "a browser says where a request comes from; this one does not.")
            if request.path != "/login" and not _same(
                request.headers.get("x-token", ""), self.token
            ):
                raise Refused(403, "the page is of an earlier watch; load it again.")

    def _is_ours(self, name: str) -> bool:
        if _LOOPBACK.fullmatch(name) or name in self._names:
            return True
        return self._open and _ADDRESS.fullmatch(name) is not None

    def knows(self, request: Request) -> bool:
        """Return whether a request may see the runs: no password is needed, or it was given."""
        if self._password is None:
            return True
        for part in request.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self._cookie and any(_same(value, one) for one in self._sessions):
                return True
        return False

    def log_in(self, request: Request) -> Answer:
        """Answer a password: a session for the right one, which is used up by that."""
        name, _, given = request.body.decode("latin-1").partition("=")
        if self._password is None or name != "password" or not _same(given, self._password):
            return refusal(403, "this is not the password that the terminal shows.")
        session = _random()
        self._sessions = [*self._sessions[1 - _MOST_SESSIONS :], session]
        self._next_password()
        cookie = f"{self._cookie}={session}; HttpOnly; SameSite=Strict; Path=/"
        headers = {"Location": "/", "Set-Cookie": f"{cookie}; Max-Age={_SESSION_SECONDS}"}
        return Answer(303, "text/plain; charset=utf-8", headers=headers)

    def _next_password(self) -> None:
        drawn = [byte for byte in os.urandom(512) if byte < 8 * len(_LETTERS)]  # without a bias
        letters = [_LETTERS[byte % len(_LETTERS)] for byte in drawn]
        self._password = "".join(letters[:_PASSWORD_LENGTH])
        self._say(f"password, for one browser: {self._password}")


def _random() -> str:
    return binascii.hexlify(os.urandom(16)).decode()


def _same(given: str, wanted: str) -> bool:
    """Return whether two texts are the same, in a time that does not tell how much of them is.

    `hmac` would map OpenSSL, 3 MB.
    """
    one, other = given.encode("latin-1", "replace"), wanted.encode()
    if len(one) != len(other):
        return False
    different = 0
    for a, b in zip(one, other, strict=True):
        different |= a ^ b
    return different == 0
