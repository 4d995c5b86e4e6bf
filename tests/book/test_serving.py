"""The built site is served, or one line says why not."""

import socket
import struct
import subprocess
import sys
import threading

import pytest
import requests

from tlhelpers.book import serving


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A built site of one page."""
    monkeypatch.setenv("TLHELPERS_BUILD", str(tmp_path / "build"))
    folder = tmp_path / "build" / "html"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<p>the book</p>")
    return folder


def test_serving_waits_for_no_library_that_builds():
    code = (
        "import sys, tlhelpers.book.serving; print({'tensorflow', 'papermill', 'pandas', 'sklearn'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said == "set()\n"


@pytest.fixture
def taken():
    """A port that another program listens on."""
    with socket.socket() as other:
        other.bind((serving.ADDRESS, 0))
        other.listen()
        yield other.getsockname()[1]


def said(capsys):
    """The one line that is said of an error."""
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_a_site_is_served_on_this_machine(site):
    with serving.serve(site) as address:
        assert address.startswith("http://127.0.0.1:")
        assert requests.get(f"{address}/", timeout=20).text == "<p>the book</p>"
        assert requests.get(f"{address}/nothing.html", timeout=20).status_code == 404


def test_before_a_build_one_line_says_what_to_do_first(site, capsys):
    (site / "index.html").unlink()
    assert serving.main([]) == 1
    assert (
        said(capsys) == f"Stopped: A site is built before it is served: run `make book` first. Received: {str(site)!r}"
    )


def test_a_port_that_is_taken_is_named_with_a_way_out(site, taken, capsys):
    assert serving.main([str(taken)]) == 1
    line = said(capsys)
    assert "choose another one, as in `make serve PORT=8080`" in line
    assert f"Received: PORT={taken} (Address already in use)" in line


@pytest.mark.parametrize("port", ["0", "99999", "8000.5", "http", "-1", ""])
def test_what_is_no_port_is_named_with_the_rule(site, capsys, port):
    assert serving.main([port]) == 1
    assert said(capsys) == f"Stopped: A port is between 1 and 65535. Received: PORT={port}"


def test_a_browser_that_goes_away_leaves_no_traceback(site, capsys):
    (site / "large.bin").write_bytes(bytes(1 << 24))
    with serving.open_server(site) as server:
        asked = socket.create_connection(server.server_address)
        asked.sendall(b"GET /large.bin HTTP/1.1\r\nHost: here\r\n\r\n")
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        asked.recv(1000)
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # goes at once, with a reset
        asked.close()
        thread.join()
    assert capsys.readouterr().err == ""


def test_ctrl_c_ends_the_server_without_a_word_of_error(site, monkeypatch, capsys):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(serving.Server, "serve_forever", interrupt)
    monkeypatch.setattr(
        serving, "open_server", lambda site, port: serving.Server((serving.ADDRESS, 0), serving.Handler)
    )
    assert serving.main(["8000"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("The site: http://localhost:")
    assert shown.err == ""
