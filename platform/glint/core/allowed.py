"""What a caller of the HTTP API may name: places of images, models, hosts to notify. What is not listed is refused."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from glint.core.errors import GlintError
from glint.core.submission import LISTS

REGISTERED = "models:/"
DELETE = 127
NAMING = (".parquet", *LISTS)
"""What a file ends in that names images: a manifest, or a list."""


@dataclass(frozen=True)
class Allowed:
    """Prefixes of image addresses and of models, and names of hosts; every check raises GlintError with the choices."""

    inputs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    webhook_hosts: tuple[str, ...] = ()

    def check_input(self, uri: str) -> None:
        """A folder, prefix, list or image within one of `inputs`, whatever dots and links its path has."""
        self.check_inputs([uri])

    def check_inputs(self, uris: Iterable[str]) -> None:
        """Each of them."""
        prefixes = [_place(prefix) for prefix in self.inputs]
        for uri in uris:
            place = _place(uri)
            if not any(_within(place, prefix) for prefix in prefixes):
                raise GlintError(_refusal("input", uri, "GLINT_BATCH_INPUTS", self.inputs))

    def check_model(self, model: str) -> None:
        """A registered model whose address begins with one of `models`, or a bundle's folder within one of them."""
        if model.startswith(REGISTERED):
            allowed = any(model.startswith(prefix) for prefix in self.models if prefix.startswith(REGISTERED))
        else:
            place, folders = _place(model, "model"), [one for one in self.models if not one.startswith(REGISTERED)]
            allowed = any(_within(place, _place(folder, "model")) for folder in folders)
        if not allowed:
            raise GlintError(_refusal("model", model, "GLINT_BATCH_MODELS", self.models))

    def check_webhook(self, url: str) -> None:
        """An address of one of the hosts: https, or http on this machine."""
        try:
            if any(ord(character) <= ord(" ") or ord(character) == DELETE for character in url):
                raise ValueError("it has a blank or a control character")  # some of which urlsplit takes out unsaid
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError as error:
            raise GlintError(f"webhook {url!r} is no address: {error}") from None
        if parts.scheme != "https" and not (parts.scheme == "http" and host in ("127.0.0.1", "localhost")):
            raise GlintError(f"webhook {url!r} must begin with https://")
        if host not in self.webhook_hosts:
            raise GlintError(_refusal("webhook", url, "GLINT_WEBHOOK_HOSTS", self.webhook_hosts))


def listed(setting: str) -> tuple[str, ...]:
    """The entries of a setting that lists them with commas."""
    return tuple(entry.strip() for entry in setting.split(",") if entry.strip())


def check_there(uri: str) -> None:
    """Raise GlintError for a path where there is nothing, or no such kind of file; what az:// has, a driver finds."""
    path = Path(_place(uri))
    if uri.startswith("az://") or path.is_dir():
        return
    if not path.exists():
        raise GlintError(f"input {uri} does not exist on the server")
    if not uri.endswith(NAMING):
        raise GlintError(f"input {uri} must be a folder, or a file that ends in {', '.join(NAMING)}")


def _place(uri: str, what: str = "input") -> str:
    """One spelling for each place: az:// addresses as they are, files as their real path."""
    if "\0" in uri or (uri.startswith("file://") and "%00" in uri):
        raise GlintError(f"{what} {uri!r} must not have a zero character in it")
    if uri.startswith("az://"):
        if any(part in (".", "..") for part in uri.split("/")):
            raise GlintError(f"{what} {uri!r} must not have . or .. in it")
        return uri.rstrip("/")
    if "://" in uri and not uri.startswith("file://"):
        raise GlintError(f"{what} {uri!r} must be az://CONTAINER/PREFIX, file:///PATH or an absolute path")
    path = os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))) if uri.startswith("file://") else uri
    if not path.startswith("/"):
        raise GlintError(f"{what} {uri!r} must be an absolute path: the server's folder is not yours")
    return os.path.realpath(path)


def _within(place: str, prefix: str) -> bool:
    return place == prefix or place.startswith(prefix.rstrip("/") + "/")


def _refusal(what: str, value: str, setting: str, choices: tuple[str, ...]) -> str:
    return f"{what} {value!r} is not within what {setting} allows: {', '.join(choices) or 'nothing yet'}"
