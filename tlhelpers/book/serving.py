"""The built site on this machine, for browsers that want a server.

python -m tlhelpers.book.serving 8000
"""

import contextlib
import functools
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from tlhelpers import settings, terminal

ADDRESS = "127.0.0.1"  # this machine alone
PORTS = range(1, 2**16)
FIRST_PAGE = "index.html"


class Handler(SimpleHTTPRequestHandler):
    """Serves files, keeps connections open between them, and keeps no log."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Says nothing."""


class Server(ThreadingHTTPServer):
    """Serves a folder; a browser that no longer wants an answer is no error."""

    def handle_error(self, request, client_address):
        """Says what went wrong with a request, unless the browser has gone."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def open_server(site, port=0):
    """A server of a folder that listens and does not answer yet.

    Args:
        site: Path. The folder of a built site.
        port: int. Between 1 and 65535; 0 takes a free one.

    Returns:
        Server. Answers once its `serve_forever` is called.

    Raises:
        FileNotFoundError: when the site has not been built.
        ValueError: when there is no such port.
        OSError: when the port is taken or not for everybody.
    """
    if not (site / FIRST_PAGE).is_file():
        raise FileNotFoundError(f"A site is built before it is served: run `make book` first. Received: {str(site)!r}")
    if port and port not in PORTS:
        raise ValueError(f"A port is between {PORTS[0]} and {PORTS[-1]}. Received: PORT={port}")
    try:
        return Server((ADDRESS, port), functools.partial(Handler, directory=str(site)))
    except OSError as error:
        raise OSError(
            error.errno,
            "A port is free and open to everybody: choose another one, as in `make serve PORT=8080`. "
            f"Received: PORT={port} ({error.strerror})",
        ) from error


@contextlib.contextmanager
def serve(site):
    """Serves the folder of a site on a free port while a block runs, and yields its address."""
    with open_server(site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{ADDRESS}:{server.server_port}"
        server.shutdown()


def main(arguments=None):
    """The command line."""
    parser = terminal.make_parser("tlhelpers.book.serving", __doc__)
    parser.add_argument("port", nargs="?", default="8000")
    chosen = parser.parse_args(arguments).port
    try:
        if not chosen.isdecimal() or not int(chosen):
            raise ValueError(f"A port is between {PORTS[0]} and {PORTS[-1]}. Received: PORT={chosen}")
        server = open_server(settings.site_folder(), int(chosen))
    except (OSError, ValueError) as error:
        print(f"Stopped: {error}", file=sys.stderr)
        return 1
    print(f"The site: http://localhost:{server.server_port} (Ctrl+C ends it)", flush=True)
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
