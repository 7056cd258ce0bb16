"""Images by their address, az://container/key, file:///… or a plain path: listed once, then read by many threads."""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glint.adapters.blob_account import BlobAccount, Credentials, addressable, container_and_key, no_credentials
from glint.adapters.files import Listed, file_uri, list_files, local_path, read_file, reason_to_ignore
from glint.core.errors import GlintError, ImageError

if TYPE_CHECKING:
    from obstore.store import AzureStore


class Images:
    """Lists and reads images. Opens nothing before its first use; pickles without connections and secrets.

    `account` and `endpoint` are those of az:// addresses; `credentials`, a function of some module, is called where
    the images are read. Files of more than `max_bytes` are not read.
    """

    def __init__(
        self,
        account: str | None = None,
        endpoint: str | None = None,
        credentials: Credentials = no_credentials,
        read_threads: int = 16,
        max_bytes: int | None = None,
    ) -> None:
        self.account = account
        self.endpoint = endpoint
        self.credentials = credentials
        self.read_threads = read_threads
        self.max_bytes = max_bytes
        self._stores: dict[str, AzureStore] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stores": {}}

    def list(self, source: str, seen: tuple[str, str] | None = None) -> Iterator[Listed]:
        """Everything below a folder or az:// prefix; what is not an image comes with the reason why not.

        `seen`, the first and last address that an earlier listing of the same prefix gave: only what comes behind.
        Raises GlintError for a source that does not exist or cannot be listed.
        """
        return self._blobs(source, seen) if source.startswith("az://") else list_files(source)

    def check_readable(self, uri: str) -> None:
        """Raise GlintError where the settings let nobody read what lies beside an az:// address, by asking for it.

        What is wrong with that one blob alone is no error here.
        """
        from glint.adapters.blobs import check_readable

        container, key = container_and_key(uri)
        check_readable(self._account(uri), container, key)

    def read(self, uri: str, etag: str | None = None) -> bytes:
        """The bytes of an image; with an etag, only if it is still the one that a listing gave.

        Raises ImageError with status missing, denied, changed, too_large or failed, and GlintError for an az://
        address when no account is configured.
        """
        if uri.startswith("az://"):
            return self._read_blob(uri, etag)
        if "://" in uri and not uri.startswith("file://"):
            raise ImageError("failed", "unknown_scheme", f"{uri} is neither az://, file:// nor a path")
        return read_file(uri, etag, self.max_bytes)

    def read_many(self, uris: Iterable[str], etags: Iterable[str | None]) -> Iterator[bytes | ImageError]:
        """The bytes of each image in order, or what is wrong with it; `read_threads` of them are read at once."""
        waiting: deque[Future[bytes | ImageError]] = deque()
        with ThreadPoolExecutor(self.read_threads, "glint-read") as pool:
            try:
                for uri, etag in zip(uris, etags, strict=True):
                    waiting.append(pool.submit(self._read_or_error, uri, etag))
                    if len(waiting) >= 2 * self.read_threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _read_or_error(self, uri: str, etag: str | None) -> bytes | ImageError:
        try:
            return self.read(uri, etag)
        except ImageError as error:
            return error

    def _account(self, uri: str) -> BlobAccount:
        if not self.account:
            raise GlintError(f"{uri} needs a storage account: set GLINT_BLOB_ACCOUNT to its name")
        return BlobAccount(self.account, self.endpoint, self.credentials)

    def download(self, uri: str, folder: Path) -> Path:
        """A blob of any size as a file below `folder`, named after its address and etag; fetched unless it is there.

        Raises as `read` does.
        """
        from glint.adapters.downloads import download_blob

        store, key = self._open_blob(uri)
        return download_blob(store, uri, key, folder / f"{self.account}")

    def _read_blob(self, uri: str, etag: str | None) -> bytes:
        from glint.adapters.blobs import read_blob

        store, key = self._open_blob(uri)
        return read_blob(store, uri, key, etag, self.max_bytes)

    def _open_blob(self, uri: str) -> tuple[AzureStore, str]:
        from glint.adapters.blobs import open_reader

        container, key = container_and_key(uri)
        if (store := self._stores.get(container)) is None:
            store = self._stores.setdefault(container, open_reader(self._account(uri), container))
        return store, key

    def _blobs(self, source: str, seen: tuple[str, str] | None) -> Iterator[Listed]:
        from glint.adapters.blob_listing import list_blobs
        from glint.adapters.blobs import UNREADABLE

        container, prefix = _container_and_prefix(source)
        if prefix and not addressable(prefix):
            raise GlintError(f"SOURCE {source}: a prefix has no empty part and no control character")
        names = (container_and_key(seen[0])[1], container_and_key(seen[1])[1]) if seen else None
        blobs = list_blobs(self._account(source), container, prefix, source, names)

        def listed() -> Iterator[Listed]:
            start = len(prefix) + 1 if prefix else 0
            for name, etag, size in blobs:
                path = name[start:]
                ignored = reason_to_ignore(path) or (None if addressable(name) else UNREADABLE)
                yield Listed(f"az://{container}/{name}", etag, size, path, ignored)

        return listed()


def address(path: str, source: str) -> str:
    """The address that a listing of `source` gives to `path`: a path within the source, or a full one already."""
    if source.startswith("az://"):
        if path.startswith("az://"):
            return path
        container, prefix = _container_and_prefix(source)
        return f"az://{container}/{posixpath.normpath(posixpath.join(prefix, path))}"
    if path.startswith("file://"):
        return file_uri(local_path(path))
    return path if "://" in path else file_uri(f"{Path(local_path(source), path)}")


def _container_and_prefix(source: str) -> tuple[str, str]:
    container, key = container_and_key(source)
    return container, key.rstrip("/")
