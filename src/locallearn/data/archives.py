"""Reading official archives: the wanted files of a tar archive or of a folder, each checked, none extracted to disk."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from locallearn._utils.errors import LocalLearnError

Part = TypeVar("Part")


def members(
    source: Path, wanted: Collection[str], *, folders: Sequence[str], called: str, md5: Mapping[str, str]
) -> Iterator[tuple[str, bytes]]:
    """Name and content of each wanted file that is there.

    Args:
        source: a tar archive, a folder, or one of the files with its neighbours.
        wanted: names of files; in an archive they may lie in any folder.
        folders: where they may lie inside of a folder.
        called: what errors call the source.
        md5: of files as published; those without one are not checked.

    Raises:
        LocalLearnError: there is no such archive, it is cut off, or a file is not the published one.
    """
    for name, content in _unpacked(source, wanted, folders, called):
        if name in md5 and hashlib.md5(content, usedforsecurity=False).hexdigest() != md5[name]:
            raise LocalLearnError(f"{called} does not hold {name} as published: its MD5 differs.")
        yield name, content


def parsed(name: str, content: bytes, parse: Callable[[bytes], Part], *, called: str) -> Part:
    """What a file says.

    Raises:
        LocalLearnError: it is garbled.
    """
    try:
        return parse(content)
    except LocalLearnError:
        raise
    except Exception as error:  # garbled bytes fail in pickle, SciPy, NumPy, JSON and Pillow in many ways
        raise LocalLearnError(f"{called} has a garbled {name} ({brief(error)}).") from None


def all_parts(
    source: Path,
    parsers: Mapping[str, Callable[[bytes], Part]],
    *,
    title: str,
    folders: Sequence[str],
    called: str,
    md5: Mapping[str, str],
) -> dict[str, Part]:
    """Read a data set of which every file is needed.

    Args:
        source: an archive, a folder, or one of the files with its neighbours.
        parsers: of each file.
        title: of the data set.
        folders: where they may lie inside of a folder.
        called: what errors call the source.
        md5: of files as published; those without one are not checked.

    Raises:
        LocalLearnError: it cannot be read, lacks a file, or one is garbled or not the published one.
    """
    found: dict[str, Part] = {}
    for name, content in members(source, parsers, folders=folders, called=called, md5=md5):
        found[name] = parsed(name, content, parsers[name], called=called)
        if len(found) == len(parsers):
            break  # what else an archive holds, such as unlabelled images, is not unpacked
    if missing := [name for name in parsers if name not in found]:
        raise LocalLearnError(f"{called} is not {title}, or not all of it: it has no {missing[0]}.")
    return found


def _unpacked(
    source: Path, wanted: Collection[str], folders: Sequence[str], called: str
) -> Iterator[tuple[str, bytes]]:
    try:
        if source.is_file() and source.name in wanted:
            source = source.parent
        if source.is_dir():
            for path in (source / folder / name for folder in folders for name in sorted(wanted)):
                if path.is_file():
                    yield path.name, path.read_bytes()
            return
        with tarfile.open(source) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name in wanted and member.isfile() and (file := archive.extractfile(member)):
                    yield name, file.read()
    except FileNotFoundError:
        raise LocalLearnError(f"{called} does not exist.") from None
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise LocalLearnError(f"{called} is cut off or no tar archive ({brief(error)}).") from None


def brief(error: BaseException) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(":")
