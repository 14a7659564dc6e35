"""Downloads from a host on this machine, and from an npm that is a shell script."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from locallearn import LocalLearnError
from locallearn.data import download
from locallearn.data.download import fetch, npm_pack

# requests leaves sockets of failed answers to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONTENT = b"an archive" * 100
MD5 = hashlib.md5(CONTENT).hexdigest()


class Host:
    """Answers each request with the next (status, content, announced bytes)."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes, int]] = []
        self.asked: list[str] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append(self.path)
                status, content, announced = host.answers.pop(0)
                self.send_response(status)
                self.send_header("Content-Length", str(announced))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/set.tar.gz"


@pytest.fixture
def host(monkeypatch) -> Iterator[Host]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    host = Host()
    thread = threading.Thread(target=host.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield host
    host.server.shutdown()
    thread.join()
    host.server.server_close()


GOOD = (200, CONTENT, len(CONTENT))
BAD = {
    "404 Client Error": (404, b"", 0),
    "500 Server Error": (500, b"", 0),
    "Connection broken: IncompleteRead": (200, CONTENT[:500], len(CONTENT)),
    "another MD5 than the published one's": (200, b"<html>please log in</html>", 26),
}


def test_a_file_is_brought_and_then_there(host, tmp_path):
    host.answers = [GOOD]
    path = fetch(host.url, MD5, tmp_path / "new")
    assert (path.name, path.read_bytes()) == ("set.tar.gz", CONTENT)
    assert fetch(host.url, MD5, tmp_path / "new") == path
    assert host.asked == ["/set.tar.gz"]


@pytest.mark.parametrize("told", BAD)
def test_a_host_is_asked_again_and_then_told(host, tmp_path, told):
    host.answers = [BAD[told], GOOD]
    assert fetch(host.url, MD5, tmp_path).read_bytes() == CONTENT
    (tmp_path / "set.tar.gz").unlink()
    host.answers = [BAD[told]] * 3
    with pytest.raises(LocalLearnError, match=told) as error:
        fetch(host.url, MD5, tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_damaged_download_is_brought_anew(host, tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(b"half")
    host.answers = [GOOD]
    assert fetch(host.url, MD5, tmp_path).read_bytes() == CONTENT


def test_a_host_that_is_not_there_is_told(host, tmp_path):
    host.server.server_close()
    with pytest.raises(LocalLearnError, match=r"the download failed .*Connection refused"):
        fetch(host.url, MD5, tmp_path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_and_an_interruption_leave_nothing(host, tmp_path, monkeypatch, error):
    def failing(*_, **__):
        raise error

    host.answers = [GOOD]
    monkeypatch.setattr("pooch.core.hash_matches", failing)
    with pytest.raises(type(error)):
        fetch(host.url, MD5, tmp_path)
    assert not list(tmp_path.iterdir())


def use_npm(monkeypatch, folder: Path, script: str) -> None:
    """An npm that is this shell script; it sees the arguments and the working folder."""
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(download.shutil, "which", lambda name: str(program) if name == "npm" else None)


def test_npm_packs_without_running_scripts(tmp_path, monkeypatch):
    use_npm(monkeypatch, tmp_path, "echo $@ > some-set-1.2.3.tgz")
    path = npm_pack("some-set@1.2.3", tmp_path)
    assert path.read_text().split() == ["pack", "--ignore-scripts", "--loglevel=error", "some-set@1.2.3"]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo npm error code E404 >&2; exit 1", "npm pack failed (npm error code E404)"),
        ("exit 3", "returned non-zero exit status 3"),
        ("exec sleep 60", "timed out after 0.3 seconds"),
    ],
)
def test_every_failure_of_npm_is_told(tmp_path, monkeypatch, script, told):
    use_npm(monkeypatch, tmp_path, script)
    monkeypatch.setattr(download, "_NPM_TIMEOUT", 0.3 if "sleep" in script else 60)
    with pytest.raises(LocalLearnError) as error:
        npm_pack("some-set@1.2.3", tmp_path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_an_npm_that_is_missing_or_does_not_start_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "which", lambda name: "/nowhere/npm")
    with pytest.raises(LocalLearnError, match=r"npm pack failed \(.*No such file"):
        npm_pack("some-set@1.2.3", tmp_path)
    monkeypatch.setattr(download.shutil, "which", lambda name: None)
    with pytest.raises(LocalLearnError, match="npm is not installed"):
        npm_pack("some-set@1.2.3", tmp_path)
