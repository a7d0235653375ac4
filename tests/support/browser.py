"""Headless Chromium, told what to do over two pipes; the standard library is enough."""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    "--remote-debugging-pipe",
)
PATIENCE_SECONDS = 120  # only an alarm for a browser that hangs
LOST_SECONDS = 3  # an answer that has not come by then was that of a page that has gone


def chromium():
    """Return the path of the browser; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class Browser:
    """A browser with one page; `problems` holds what its console complained about."""

    def __init__(self, width=1280, height=900, dark=False):
        self.problems, self.asked = [], []
        self._size, self._dark = (width, height), dark
        self._number, self._buffer, self._session = 0, b"", None

    def __enter__(self):
        self._profile = tempfile.TemporaryDirectory()
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        os.set_inheritable(read, True)
        os.set_inheritable(write, True)
        words = [chromium(), *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        script = f'exec "$0" "$@" 3<&{read} 4>&{write} >/dev/null 2>&1'
        self._process = subprocess.Popen(
            ["bash", "-c", script, *words], pass_fds=(read, write), start_new_session=True
        )
        os.close(read)
        os.close(write)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for name in ("Page", "Runtime", "Log"):
            self.call(f"{name}.enable")
        width, height = self._size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = "dark" if self._dark else "light"
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        return self

    def __exit__(self, *_):
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile.name, ignore_errors=True)
        self._profile._finalizer.detach()

    def call(self, method, **parameters):
        """Do something; return what the browser says; nothing where the page went meanwhile."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        number = self._number
        while True:
            found = self._next()
            if found is None or (found.get("id") == number and "error" in found):
                return {}
            if found.get("id") == number:
                return found["result"]

    def _next(self):
        while b"\0" not in self._buffer:
            if (
                self._session is not None
                and not select.select([self._read], [], [], LOST_SECONDS)[0]
            ):
                return None
            piece = os.read(self._read, 1 << 16)
            assert piece, "the browser has ended"
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        found = json.loads(text)
        self._hear(found.get("method"), found.get("params", {}))
        return found

    def _hear(self, method, said):
        if method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.problems.append(said["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(said["exceptionDetails"]))
        elif method == "Page.javascriptDialogOpening":  # a question is always answered with yes
            self.asked.append(said["message"])
            message = {"id": 10**9, "method": "Page.handleJavaScriptDialog"}
            message |= {"params": {"accept": True}, "sessionId": self._session}
            os.write(self._write, json.dumps(message).encode() + b"\0")

    def open(self, address):
        """Go to an address."""
        self.call("Page.navigate", url=address)

    def value(self, expression):
        """Return what an expression of JavaScript is on the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found.get("result", {}).get("value")

    def wait_for(self, expression):
        """Return the value of an expression once it is true."""
        since = time.monotonic()
        while not (value := self.value(expression)):
            text = self.value("document.body.innerText")
            assert time.monotonic() - since < PATIENCE_SECONDS, f"{expression}: {text}"
            time.sleep(0.05)
        return value

    def text(self):
        """Return what a person reads on the page."""
        return self.value("document.body.innerText")

    def picture(self, path):
        """Write what the window shows as a PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))
