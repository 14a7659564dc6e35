"""Copy the files of a data set out of a tar archive or a folder, and nothing else."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath

from locallearn._utils.atomic_files import is_disk_full, regular_file
from locallearn._utils.errors import LocalLearnError, describe
from locallearn.data.published_set import PublishedSet, is_no_folder


def unpack(known: PublishedSet, source: Path, folder: Path) -> None:
    """Put the official files into a folder; a file that the source lacks is left out.

    Args:
        known: the data set.
        source: a tar archive, a folder, or one of the files with its neighbours.
        folder: where the files go.

    Raises:
        LocalLearnError: there is no such source, an archive is cut off, or a file is none or larger than it can be;
            the end of a sentence that names the source.
    """
    package = known.package.files if known.package else ()
    wanted = {*known.files, *package}
    if source.name in wanted and is_no_folder(source):
        source = source.parent
    if source.is_dir():
        source = known.folder_in(source) or (source / "package" if (source / "package").is_dir() else source)
        for name in wanted:
            if is_no_folder(source / name):
                shutil.copyfile(regular_file(source / name, most=known.largest_file), folder / name)
    else:
        _extract(known, regular_file(source, most=2**50), folder, wanted)
    if known.package and any((folder / name).exists() for name in package):
        known.package.convert(folder)
        for name in package:
            (folder / name).unlink()


def _extract(known: PublishedSet, source: Path, folder: Path, wanted: set[str]) -> None:
    """Members are extracted by their bare names, so that none can lie outside of the folder."""
    left, total = set(known.files), 0
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                total += member.size
                if member.size < 0 or total > 2 * known.size or (name in wanted and member.size > known.largest_file):
                    raise tarfile.TarError(f"{name} has {member.size:,} bytes, more than fit")
                if name in wanted and not member.isdir():
                    if not member.isfile():
                        raise tarfile.TarError(f"{name} is a link or a device")
                    archive.extract(member.replace(name=name, deep=False), folder, filter="data")
                    left.discard(name)
                if not left:
                    return  # what else an archive holds, such as unlabelled images, is not unpacked
    except Exception as error:  # garbled archives fail in many ways
        if is_disk_full(error):
            raise
        raise LocalLearnError(f"it is cut off or no such tar archive ({describe(error)})") from error
