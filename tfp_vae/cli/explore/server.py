"""The page and its questions over HTTP, for one user on this computer.

Only the loopback address listens. A request needs the token that is part of the page's address, and
must name this address as its host, so that other pages and other users of the computer get nothing.
Since these users see with which address a browser is started, it is one that leads to the page once. A
file that only its owner can read would hide it wholly, but browsers in a Snap cannot open such files.
"""

import contextlib
import importlib.resources
import json
import secrets
import socket
import socketserver
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tfp_vae.cli.explore.explorer import Explorer
from tfp_vae.cli.failures import in_words

HOST = "127.0.0.1"
# Seconds until a connection that says nothing is closed.
PATIENCE = 60
# Seconds in which the rest of a refused request is read.
LINGER = 5
# The files of the page, and their types; the page itself has no name.
FILES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
}
JSON = "application/json"
# Bytes that are read at once of a refused request.
CHUNK = 2**16
# The page loads nothing but its own files, sends nothing elsewhere, and is in no other page's frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
# Errors of a question, and of a server that the model runs on.
BAD = (TypeError, ValueError)
UPSTREAM = (ConnectionError, TimeoutError, RuntimeError)


class Server(ThreadingHTTPServer):
    """The server of an explorer.

    Args:
        explorer: what answers.
        port: of the loopback address; 0 takes a free one.

    Attributes:
        files: content and type of the page's files by name.
        address: of the page.
        opening: an address that leads to the page once.

    Raises:
        ValueError: if the port cannot be used.
    """

    daemon_threads = True
    # Connections that wait to be taken.
    request_queue_size = 128

    def __init__(self, explorer: Explorer, port: int = 0):
        self.explorer = explorer
        self.token, ticket = (secrets.token_urlsafe(24) for _ in range(2))
        self.tickets = {ticket}
        folder = importlib.resources.files(__package__)
        self.files = {
            name: (folder.joinpath(file).read_bytes(), kind) for name, (file, kind) in FILES.items()
        }
        # One question at a time: each uses all cores.
        self.turn = threading.Lock()
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise ValueError(
                f"Port {port} of {HOST} cannot be used: {error.strerror}. Choose another --port, or "
                "leave it out."
            ) from error
        port = self.server_address[1]
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        self.address, self.opening = (
            f"http://{HOST}:{port}/{name}/" for name in (self.token, ticket)
        )

    def server_bind(self):
        """Bind without asking for the computer's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request, client_address):
        """Say nothing of a browser that has gone."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Refusal(Exception):
    """A request is refused: with a status, and a line that says why."""

    def __init__(self, status: HTTPStatus, line: str):
        super().__init__(line)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """The answers to one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "tfp-vae"
    sys_version = ""
    timeout = PATIENCE
    # Without these two a short answer waits for 40 ms.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        """Answer with a file of the page, or with what the page must know of the model."""
        self._answer(self._get)

    def do_POST(self):
        """Answer a question."""
        self._answer(self._post)

    def do_HEAD(self):
        """Refuse, as all but GET and POST."""
        self._answer(self._refuse_method)

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD

    def log_message(self, *arguments):
        """Write nothing: the terminal shows the address, and the page its errors."""

    def _answer(self, method) -> None:
        status = HTTPStatus.OK
        try:
            content, kind = method(self._name())
        except Refusal as refusal:
            status = refusal.status
            content, kind = _json({"error": str(refusal)}), JSON
            self.close_connection = True  # what was not read of the request is no next request
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, POST")
        if status == HTTPStatus.SEE_OTHER:
            self.send_header("Location", f"/{self.server.token}/")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        if self.close_connection:
            self._hear_out()

    def _hear_out(self) -> None:
        """Read what still comes, until the client has ended or `LINGER` is over: if a connection is
        closed before all was read, the client's system throws the answer away.
        """
        end = time.monotonic() + LINGER
        with contextlib.suppress(OSError):  # the client has gone, or is silent
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            while (left := end - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.rfile.read1(CHUNK):
                    return

    def _name(self) -> str:
        """Return what is asked for, if the request may ask."""
        if self.headers.get("Host", "") not in self.server.hosts:
            raise Refusal(HTTPStatus.FORBIDDEN, "This address is not the one that was printed.")
        origin = self.headers.get("Origin")
        if origin is not None and origin.removeprefix("http://") not in self.server.hosts:
            raise Refusal(HTTPStatus.FORBIDDEN, "Other pages may ask nothing.")
        _, token, name = [*self.path.split("/", 2), "", ""][:3]
        with contextlib.suppress(KeyError):
            self.server.tickets.remove(token)
            raise Refusal(HTTPStatus.SEE_OTHER, "The page has another address.")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refusal(HTTPStatus.FORBIDDEN, "The address lacks its token: take it as printed.")
        return name

    def _get(self, name: str) -> tuple[bytes, str]:
        if self.path == f"/{self.server.token}":  # the page's files are named from a slash on
            raise Refusal(HTTPStatus.SEE_OTHER, "The page's address ends in a slash.")
        if name == "model":
            return self._ask(name, {}), JSON
        if name not in self.server.files:
            raise Refusal(HTTPStatus.NOT_FOUND, "There is no such file.")
        return self.server.files[name]

    def _refuse_method(self, name: str) -> tuple[bytes, str]:
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and POST.")

    def _post(self, name: str) -> tuple[bytes, str]:
        if name not in self.server.explorer.questions:
            raise Refusal(HTTPStatus.NOT_FOUND, "There is no such question.")
        if self.headers.get_content_type() != JSON:
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"A question must be {JSON}.")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "A question must have a Content-Length.")
        most = self.server.explorer.most_bytes
        if len(length) > 12 or int(length) > most:
            line = f"A question has at most {most:,} bytes."
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, line)
        return self._ask(name, _read(self.rfile.read(int(length)))), JSON

    def _ask(self, name: str, question: dict) -> bytes:
        explorer = self.server.explorer
        try:
            with self.server.turn:
                return _json(explorer.questions[name](**question))
        except BAD as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, in_words(error)) from error
        except UPSTREAM as error:
            raise Refusal(HTTPStatus.BAD_GATEWAY, in_words(error)) from error
        except Exception as error:  # whatever a library raises: the page shows it
            raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, in_words(error)) from error


def _json(content) -> bytes:
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def _read(body: bytes) -> dict:
    """Return the arguments of a question."""
    try:
        question = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"A question must be JSON: {error}.") from error
    if not isinstance(question, dict):
        raise Refusal(HTTPStatus.BAD_REQUEST, "A question must be a JSON object.")
    return question


def _refuse(constant: str):
    raise ValueError(f"{constant} is no number")


__all__ = ["Server"]
