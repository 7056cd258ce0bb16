"""The storage account of az:// addresses: where it is, how glint signs in, and which setting a refusal is about.

With neither a key nor a SAS, glint signs in with Entra ID by azure-identity's DefaultAzureCredential: environment,
workload identity, managed identity, Azure CLI. obstore's own chain would do for reading, but takes the CLI only when
told to; with this one, reading and uploading agree, and every way to sign in works without a setting.
"""

from __future__ import annotations

import base64
import functools
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs
from urllib.request import getproxies

from glint.adapters.authority import authority_options
from glint.adapters.names import NO_NAME_SERVER, name_server_answers
from glint.core.errors import GlintError

if TYPE_CHECKING:
    from azure.identity import DefaultAzureCredential

Credentials = Callable[[], Mapping[str, str]]
"""Finds the secrets of the account (`account_key` or `sas_key`) on the machine that is about to use them."""

SCOPE = "https://storage.azure.com/.default"
"""What a token is asked for; the same in every cloud."""

NO_IDENTITY = (
    "GLINT_BLOB_KEY and GLINT_BLOB_SAS are not set, and there is no Azure identity to sign in with: set one of them, "
    "run `az login`, or give this machine a workload or managed identity"
)

_UNADDRESSABLE = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f]")


def no_credentials() -> Mapping[str, str]:
    """None of glint's own: Entra ID then."""
    return {}


@dataclass(frozen=True)
class SignIn:
    """How requests are authorised: with an account key, a SAS, or as an identity of Entra ID."""

    how: Literal["key", "sas", "identity"]
    secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class Refusal:
    """Why a request came to nothing: an HTTP status with Azure's code for it, or no answer at all."""

    status: int = 0
    """0 where there was no answer."""
    code: str = ""
    detail: str = ""
    reached: bool = True
    """Whether there was a connection at all."""

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (0, 408, 429) or self.status >= 500


@dataclass(frozen=True)
class BlobAccount:
    """A storage account. Opens nothing and holds no secret: `credentials` is called where they are used."""

    name: str
    endpoint: str | None = None
    credentials: Credentials = no_credentials

    @property
    def url(self) -> str:
        """The endpoint, without a slash at its end; raises GlintError for one that is none."""
        if self.endpoint is None:
            if not re.fullmatch("[a-z0-9]{3,24}", self.name):
                raise GlintError(f"GLINT_BLOB_ACCOUNT {self.name!r} must be 3 to 24 lower-case letters and digits")
            return f"https://{self.name}.blob.core.windows.net"
        if not re.fullmatch(r"https?://([\w.-]+|\[[\da-fA-F:]+\])(:\d{1,5})?(/[\w.-]+)?/?", self.endpoint):
            shown = self.endpoint.partition("?")[0]  # without a SAS that was pasted with it
            raise GlintError(
                f"GLINT_BLOB_ENDPOINT {shown!r} must be https://HOST[:PORT] or https://HOST[:PORT]/ACCOUNT"
            )
        return self.endpoint.rstrip("/")

    def sign_in(self) -> SignIn:
        """The key, else the SAS, else an identity; raises GlintError for a secret that cannot be one."""
        secrets = self.credentials()
        if key := secrets.get("account_key", "").strip():
            try:
                base64.b64decode(key, validate=True)
            except ValueError:  # binascii.Error, and what is not ASCII
                raise GlintError("GLINT_BLOB_KEY is not the key of an account: it is not base64") from None
            return SignIn("key", key)
        if sas := secrets.get("sas_key", "").strip().lstrip("?"):
            if "sig" not in parse_qs(sas):
                raise GlintError("GLINT_BLOB_SAS is not a shared access signature: it has no sig=")
            return SignIn("sas", sas)
        return SignIn("identity")

    def identity(self) -> DefaultAzureCredential:
        """The identity of Entra ID, signed in; raises GlintError where there is none."""
        from azure.core.exceptions import AzureError

        if self.url.startswith("http://"):
            needed = "set GLINT_BLOB_KEY or GLINT_BLOB_SAS"
            raise GlintError(f"GLINT_BLOB_ENDPOINT {self.url} is not https, where an identity could sign in: {needed}")
        self.check_name_server()
        found = _identity(**authority_options(self.url))
        try:
            found.get_token(SCOPE)
        except AzureError as error:
            reason = re.search(r"AADSTS\d+[^\n]{0,200}", str(error))
            raise GlintError(NO_IDENTITY + (f" ({reason[0]})" if reason else "")) from None
        return found

    def check_name_server(self) -> None:
        """Raise GlintError, within seconds, where nothing is heard of the account's name. A proxy looks names up."""
        if not getproxies() and not name_server_answers(self.url):
            raise GlintError(f"{self._place()} does not answer ({NO_NAME_SERVER})")

    def explain(self, refusal: Refusal, container: str) -> str:
        """The refusal in one line that names what to change: a setting or the container."""
        if refusal.status == 0:
            return f"{self._place()} does not answer ({refusal.detail or 'no connection'})"
        if refusal.status in (401, 403):
            return self._denied(refusal)
        if refusal.code == "ResourceNotFound":  # azurite, of an account that it does not have
            return f"GLINT_BLOB_ACCOUNT {self.name} does not exist at {self.url}"
        if refusal.status < 400 or (refusal.status == 404 and not refusal.code):
            return f"{self._place()} answers, but not as Azure Blob Storage does"
        if refusal.status == 404:
            return f"account {self.name} has no container {container} (at {self.url})"
        if "InvalidResourceName" in refusal.code or refusal.code == "OutOfRangeInput":
            return f"{container} is no name of a container: 3 to 63 lower-case letters, digits and single hyphens"
        said = f"{refusal.status} {refusal.code}".strip()
        if refusal.status >= 500 or refusal.status == 429:
            return f"{self.url} is busy or out of order ({said}); the same command goes on from here"
        return f"{self._place()} answers {said}"

    def _denied(self, refusal: Refusal) -> str:
        how = self.sign_in()
        if how.how == "key":
            return f"account {self.name} refuses it; check GLINT_BLOB_KEY"
        if how.how == "identity":
            return (
                f"account {self.name} refuses the identity that glint signed in with: give it the role Storage Blob "
                "Data Contributor (Reader, to read only), or set GLINT_BLOB_KEY or GLINT_BLOB_SAS"
            )
        expiry = parse_qs(how.secret).get("se", [""])[0]
        if _is_past(expiry):
            return f"GLINT_BLOB_SAS expired at {expiry}; set a new one"
        return (
            f"account {self.name} refuses it; check that GLINT_BLOB_SAS is of this account and container and allows "
            "to read and list (and to create and write, for an upload)"
        )

    def _place(self) -> str:
        return f"GLINT_BLOB_ENDPOINT {self.url}" if self.endpoint else f"GLINT_BLOB_ACCOUNT {self.name}: {self.url}"


def container_and_key(uri: str) -> tuple[str, str]:
    """Keys stand in an address as they are, unescaped."""
    container, _, key = uri.removeprefix("az://").partition("/")
    if not container:
        raise GlintError(f"{uri} names no container; addresses are az://CONTAINER/KEY")
    return container, key


def addressable(key: str) -> bool:
    """Whether obstore can ask for this name: it makes others of `a//b` and `a/`, and knows no control characters."""
    return not _UNADDRESSABLE.search(key)


@functools.cache
def _identity(**options: str) -> DefaultAzureCredential:
    from azure.identity import DefaultAzureCredential

    # Would tell of every way that it tried to sign in, on stderr; the one that counts is in the error.
    logging.getLogger("azure.identity").setLevel(logging.ERROR)
    return DefaultAzureCredential(**options)


def _is_past(expiry: str) -> bool:
    try:
        when = datetime.fromisoformat(expiry)
    except ValueError:
        return False
    return (when if when.tzinfo else when.replace(tzinfo=UTC)) <= datetime.now(UTC)
