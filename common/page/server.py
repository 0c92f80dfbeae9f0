"""The page's server: three addresses, for browsers on this machine."""
import contextlib
import ipaddress
import json
import os
import re
import socket
import socketserver
import sys
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from common.page import panels

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.html")
LARGEST = 2**18  # bytes of a drawing
HTML, JSON, LINE = "text/html", "application/json", "text/plain"
# The page brings all that it needs: the browser is to load nothing from elsewhere.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; " \
         "connect-src 'self'; img-src data:"


class Refused(ValueError):
    """A request that gets a status and a line."""

    def __init__(self, status, line):
        super().__init__(line)
        self.status = status


class Server(socketserver.ThreadingTCPServer):
    """Serves the page for some networks, until it is closed.

    Browsers open connections that they may not use, so each has a thread. The networks have one of
    their own, that of ``worker``: MXNet is not made for many.

    Args:
        host, port: to listen at; port 0 is any that is free.
        networks: list of ``panels.Panel``; the page begins with the first two.

    Attributes:
        networks: name -> ``panels.Panel``.

    Raises:
        ValueError: one cannot listen there.
    """

    allow_reuse_address, daemon_threads = True, True

    def __init__(self, host, port, networks):
        self.host, self.worker = host, ThreadPoolExecutor(1)
        self.networks = {network.name: network for network in networks}
        try:
            (self.address_family, *_, address), *_ = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM)
            super().__init__(address[:2], Handler)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "not the name of a machine"
            raise ValueError(f"--host {host} --port {port}: {reason}: give others") from None

    def server_close(self):
        super().server_close()
        self.worker.shutdown()

    @property
    def url(self):
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    @property
    def is_private(self):
        """Whether this machine alone can reach it."""
        return ipaddress.ip_address(self.server_address[0]).is_loopback

    def knows(self, host):
        """Whether a request's Host is this server.

        Elsewhere's pages could have a name of theirs lead here, and then read what is answered. An
        address in numbers is no such name.
        """
        name = re.sub(r":\d*$", "", host).strip("[]").lower()
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name in ("localhost", self.host.lower())

    def look(self, drawing):
        """What the networks that a ``panels.Drawing`` asks for make of it."""
        return [self.networks[name].look(drawing) for name in drawing.panels]

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):  # a browser that has gone is no error
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers a request."""

    timeout = 10  # seconds for what is slow to arrive

    def do_GET(self):
        self._answer({"/": self._page, "/models": self._models})

    def do_POST(self):
        self._answer({"/look": self._look})

    def _answer(self, addresses):
        try:
            if not self.server.knows(self.headers.get("Host", "")):
                raise Refused(403, "this page has another address")
            path = self.path.partition("?")[0]
            if path not in addresses:
                raise Refused(404, "there is no such page")
            self._send(200, *addresses[path]())
        except Refused as refusal:
            self._send(refusal.status, LINE, f"{refusal}\n".encode())

    def _page(self):
        with open(PAGE, "rb") as file:
            return HTML, file.read()

    def _models(self):
        networks = self.server.networks.values()
        return JSON, json.dumps([network.about() for network in networks]).encode()

    def _look(self):
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > LARGEST:
            raise Refused(400, f"expected a Content-Length of at most {LARGEST} bytes")
        try:
            drawing = panels.read(self.rfile.read(int(length)), self.server.networks)
        except socket.timeout:
            raise Refused(408, f"the body did not arrive within {self.timeout} s") from None
        except ValueError as error:
            raise Refused(400, error) from None
        try:
            looking = self.server.worker.submit(self.server.look, drawing)
        except RuntimeError:  # the server is being closed
            raise Refused(503, "this page has come to its end") from None
        try:
            return JSON, json.dumps(looking.result(), allow_nan=False).encode()
        except ValueError:  # of JSON, or of who looks for probabilities
            raise Refused(500, "what a network answers is not finite") from None

    def _send(self, status, kind, content):
        self.send_response(status)
        for name, value in (("Content-Type", f"{kind}; charset=utf-8"),
                            ("Content-Length", len(content)), ("Cache-Control", "no-store"),
                            ("Content-Security-Policy", POLICY),
                            ("X-Content-Type-Options", "nosniff")):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code, message=None, explain=None):
        """As upstream's, for what has no ``do_...``, in a line."""
        self.close_connection = True
        self._send(code, LINE, f"{message or HTTPStatus(code).phrase}\n".encode())

    def log_message(self, *_):
        """Says nothing: a stroke makes many requests."""
