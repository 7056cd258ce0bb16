"""Images by their address, az://container/key, file:///… or a plain path: listed once, then read by many threads."""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import AzureStore

from glint.adapters.files import (
    Listed,
    changed,
    check_size,
    file_uri,
    list_files,
    local_path,
    read_file,
    reason_to_ignore,
)
from glint.core.errors import GlintError, ImageError

Credentials = Callable[[], Mapping[str, str]]
"""Finds the secrets of the account (`account_key` or `sas_key`) on the machine that is about to use them."""


def no_credentials() -> Mapping[str, str]:
    """None of glint's own: obstore then looks for AZURE_* in the environment and for a managed identity."""
    return {}


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

    def list(self, source: str) -> Iterator[Listed]:
        """Everything below a folder or az:// prefix; what is not an image comes with the reason why not.

        Raises GlintError for a source that does not exist or cannot be listed.
        """
        return self._blobs(source) if source.startswith("az://") else list_files(source)

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

    def _store(self, container: str) -> AzureStore:
        if not self.account:
            raise GlintError(f"az://{container} needs a storage account: set GLINT_BLOB_ACCOUNT to its name")
        if container not in self._stores:
            config: Any = {"account_name": self.account, **self.credentials()}
            if self.endpoint:
                config["endpoint"] = self.endpoint
            plain = (self.endpoint or "").startswith("http://")
            try:
                self._stores[container] = AzureStore(container, config=config, client_options={"allow_http": plain})
            except BaseError as error:
                raise GlintError(f"az://{container}: GLINT_BLOB_* do not make an account: {_line(error)}") from None
        return self._stores[container]

    def _blobs(self, source: str) -> Iterator[Listed]:
        container, prefix = _container_and_key(source)
        store = self._store(container)

        def listed() -> Iterator[Listed]:
            for chunk in obstore.list(store, prefix or None, chunk_size=1000):
                for blob in chunk:
                    path = blob["path"][len(prefix) :].lstrip("/")
                    uri = f"az://{container}/{blob['path']}"
                    etag = (blob["e_tag"] or "").strip('"') or None
                    yield Listed(uri, etag, blob["size"], path, reason_to_ignore(path))

        return self._explained(source, container, listed())

    def _explained(self, source: str, container: str, blobs: Iterator[Listed]) -> Iterator[Listed]:
        try:
            yield from blobs
        except (BaseError, FileNotFoundError) as error:
            reason = _line(error)
            if "404 Not Found" in reason:
                reason = f"account {self.account} has no container {container}"
            elif "403 Forbidden" in reason:
                reason = f"account {self.account} refuses it; check GLINT_BLOB_KEY or GLINT_BLOB_SAS"
            raise GlintError(f"SOURCE {source} cannot be listed: {reason}") from None

    def _read_blob(self, uri: str, etag: str | None) -> bytes:
        container, key = _container_and_key(uri)
        store = self._store(container)
        try:
            # Azure's listing gives an etag bare; a condition of HTTP has it in quotes.
            found = obstore.get(store, key, options={"if_match": f'"{etag}"'} if etag else None)
            check_size(uri, found.meta["size"], self.max_bytes)
            return bytes(found.bytes())
        except FileNotFoundError:
            raise ImageError("missing", "not_found", f"{uri} does not exist") from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise ImageError("denied", "permission", f"{uri} may not be read: {_line(error)}") from None
        except PreconditionError:
            raise changed(uri) from None
        except BaseError as error:
            raise ImageError("failed", "read_error", f"{uri} cannot be read: {_line(error)}") from None


def address(path: str, source: str) -> str:
    """The address that a listing of `source` gives to `path`: a path within the source, or a full one already."""
    if source.startswith("az://"):
        if path.startswith("az://"):
            return path
        container, prefix = _container_and_key(source)
        return f"az://{container}/{posixpath.normpath(posixpath.join(prefix, path))}"
    if path.startswith("file://"):
        return file_uri(local_path(path))
    return path if "://" in path else file_uri(f"{Path(local_path(source), path)}")


def _container_and_key(uri: str) -> tuple[str, str]:
    """Keys stand in an address as they are, unescaped."""
    container, _, key = uri.removeprefix("az://").partition("/")
    if not container:
        raise GlintError(f"{uri} names no container; addresses are az://CONTAINER/KEY")
    return container, key.rstrip("/")


def _line(error: Exception) -> str:
    """The first line of obstore's message, without the server's XML and the debugging text. obstore redacts a SAS."""
    return str(error).strip().partition("\n")[0].partition(": <?xml")[0]
