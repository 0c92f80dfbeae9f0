"""A page in a headless Chromium, driven by its DevTools protocol."""
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request

import websocket

PATH = next(filter(None, map(shutil.which, (
    "chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60  # seconds


class Page:
    """A page that is open.

    Args:
        address: of its end of the protocol, ``ws://...``.
    """

    def __init__(self, address):
        self._socket = websocket.create_connection(address, PATIENCE, suppress_origin=True)
        self._numbers = itertools.count()

    def call(self, method, **params):
        """What a method of the protocol returns."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:  # events come in between
            reply = json.loads(self._socket.recv())
            if reply.get("id") == number:
                assert "error" not in reply, reply
                return reply["result"]

    def value(self, expression):
        """What an expression in JavaScript is, as JSON can hold it."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_until(self, expression):
        """Waits until an expression is true."""
        wait_for(lambda: self.value(expression), expression)

    def drag(self, points):
        """Draws with the mouse from point to point (x, y), in pixels of the page."""
        self._mouse("mousePressed", points[0])
        for point in points:
            self._mouse("mouseMoved", point)
        self._mouse("mouseReleased", points[-1])

    def press(self, key):
        """Presses and releases a key, such as ``Enter``, in what has the focus."""
        code = {"ArrowRight": 39, "ArrowLeft": 37, "Enter": 13}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def _mouse(self, kind, point):
        self.call("Input.dispatchMouseEvent", type=kind, x=point[0], y=point[1], button="left",
                  buttons=1, clickCount=1)


@contextlib.contextmanager
def opened(url, folder):
    """A context with the ``Page`` at a URL; Chromium keeps what it needs in a folder."""
    with subprocess.Popen(
            [PATH, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
             f"--user-data-dir={folder}", url],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield Page(wait_for(lambda: _address(folder, url), f"Chromium to open {url}"))
        finally:
            process.kill()


def _address(folder, url):
    """Where a page is driven, None before it is there."""
    with contextlib.suppress(OSError, StopIteration):
        with open(os.path.join(folder, "DevToolsActivePort"), encoding="ascii") as file:
            port = file.readline().strip()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as reply:
            return next(target["webSocketDebuggerUrl"] for target in json.load(reply)
                        if target["url"] == url)


def wait_for(find, what):
    """What a function finds, as soon as it finds something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = find()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {PATIENCE} s in vain for {what}")
