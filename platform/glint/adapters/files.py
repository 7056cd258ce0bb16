"""Image files on this machine: their addresses, listing and reading.

Not through obstore, as blobs are: its listing of a folder passes over some names (`a.jpg#1`, broken links) without a
word and fails as a whole over one that is not UTF-8, and it takes 8 times the CPU time to read a file of 4 KB. Paths
are strings here, for a listing makes millions of them.
"""
# ruff: noqa: PTH100, PTH111, PTH112, PTH116

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from glint.core.errors import GlintError, ImageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Names that end like this, in upper or lower case, are images; what is in them is found out when they are read."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A file or blob that a listing met: `path` is its name within the source, `ignored` why it is no image."""

    uri: str
    etag: str | None
    size: int
    path: str
    ignored: str | None = None


def file_uri(path: str) -> str:
    """The file:// address of a local path, relative or absolute, whatever bytes its name has."""
    return _uri(os.path.abspath(path))


def local_path(uri: str) -> str:
    """The absolute path that a file:// address or a plain path names."""
    if uri.startswith("file://"):
        return os.path.abspath(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))
    return os.path.abspath(os.path.expanduser(uri))


def reason_to_ignore(path: str) -> str | None:
    """Why a path, which starts in the source, is not an image's; None where it may be one."""
    if path.startswith(".") or "/." in path:
        return "hidden"
    return None if path.lower().endswith(SUFFIXES) else "not an image name"


def list_files(source: str) -> Iterator[Listed]:
    """Every file below a folder in the order of names, what is no image included.

    Links are followed, except back to a folder they lie in. Raises GlintError where a folder cannot be listed.
    """
    folder = local_path(source)
    if not os.path.isdir(folder):
        raise GlintError(f"SOURCE {source} is no folder; give an existing folder or az://CONTAINER/PREFIX")
    return _walk(folder, folder, ())


def read_file(uri: str, etag: str | None, max_bytes: int | None) -> bytes:
    """The bytes of a file; raises ImageError, in particular when the etag is not that of the listing any more."""
    try:
        # Without O_NONBLOCK, opening a pipe that happens to be named like an image would wait for ever.
        file = os.open(local_path(uri), os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError("missing", "not_found", f"{uri} does not exist") from None
    except PermissionError:
        raise ImageError("denied", "permission", f"{uri} may not be read: permission denied") from None
    except (OSError, ValueError) as error:
        raise ImageError("failed", "read_error", f"{uri} cannot be read: {error}") from None
    try:
        return _read_open_file(file, uri, etag, max_bytes)
    except OSError as error:
        raise ImageError("failed", "read_error", f"{uri} cannot be read: {error.strerror}") from None
    finally:
        os.close(file)


def check_size(uri: str, size_bytes: int, max_bytes: int | None) -> None:
    """Raise ImageError too_large when there are more bytes than allowed."""
    if max_bytes is not None and size_bytes > max_bytes:
        message = f"{uri} has {size_bytes:,} bytes, more than GLINT_MAX_BYTES {max_bytes:,}"
        raise ImageError("too_large", "too_many_bytes", message)


def changed(uri: str) -> ImageError:
    """The error of an image that is no longer the one pinned."""
    return ImageError("changed", "changed", f"{uri} is no longer what the manifest lists; take a new snapshot")


def _walk(folder: str, root: str, above: tuple[tuple[int, int], ...]) -> Iterator[Listed]:
    try:
        here = os.stat(folder)
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise GlintError(f"SOURCE: the folder {folder} cannot be listed: {error.strerror}") from None
    above = (*above, (here.st_dev, here.st_ino))
    for entry in entries:
        info = _stat(entry)
        if info and stat.S_ISDIR(info.st_mode) and not entry.name.startswith("."):
            if (info.st_dev, info.st_ino) in above:
                yield _listed(entry.path, root, info, "link to a folder above it")
            else:
                yield from _walk(entry.path, root, above)
        else:
            yield _listed(entry.path, root, info, None)


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:
        return None


def _listed(path: str, root: str, info: os.stat_result | None, reason: str | None) -> Listed:
    within = path[len(root) :].lstrip("/")
    shown = within if within.isascii() else os.fsencode(within).decode(errors="replace")
    reason = reason or reason_to_ignore(shown)
    if info is None:
        return Listed(_uri(path), None, 0, shown, reason or "broken link")
    if not reason and not stat.S_ISREG(info.st_mode):
        reason = "not a file"
    return Listed(_uri(path), _etag(info), info.st_size, shown, reason)


def _uri(path: str) -> str:
    return "file://" + quote(os.fsencode(path))


def _etag(info: os.stat_result) -> str:
    """Time of the last change and size; not the inode, which network and FUSE file systems make up as they go."""
    return f"{info.st_mtime_ns // 1000:x}-{info.st_size:x}"


def _read_open_file(file: int, uri: str, etag: str | None, max_bytes: int | None) -> bytes:
    info = os.fstat(file)
    if not stat.S_ISREG(info.st_mode):
        raise ImageError("failed", "not_a_file", f"{uri} is not a file")
    if etag and etag != _etag(info):
        raise changed(uri)
    check_size(uri, info.st_size, max_bytes)
    data = os.read(file, info.st_size)
    while len(data) < info.st_size and (more := os.read(file, info.st_size - len(data))):
        data += more
    return data
