"""Which addresses a request may name: az:// prefixes on a list, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from glint.core.errors import GlintError
from glint.serving.problems import ProblemError

if TYPE_CHECKING:
    from glint.adapters.images import Images


class AllowedUris:
    """Reads blobs below `prefixes`, each az://CONTAINER or az://CONTAINER/PREFIX."""

    def __init__(self, images: Images, prefixes: Sequence[str]) -> None:
        self._images, self._prefixes = images, tuple(prefix.rstrip("/") + "/" for prefix in prefixes)

    def __call__(self, uri: str) -> bytes:
        """The blob's bytes; raises ProblemError 403 for an address not on the list, ImageError as reading does."""
        if not (uri.startswith(self._prefixes) and _is_plain(uri)):
            raise ProblemError(403, "uri_not_allowed", f"{uri[:200]!r} is below no prefix that this server may read")
        return self._images.read(uri)


def check_prefixes(prefixes: Sequence[str], account: str | None) -> None:
    """Raise GlintError for a prefix that is none, or that no storage account is set up for."""
    for prefix in prefixes:
        if not _is_plain(prefix.removesuffix("/")):
            raise GlintError(f"GLINT_SERVE_URIS: {prefix!r} must be az://CONTAINER or az://CONTAINER/PREFIX")
    if prefixes and not account:
        raise GlintError(
            f"GLINT_SERVE_URIS {list(prefixes)} needs a storage account: set GLINT_BLOB_ACCOUNT to its name"
        )


def _is_plain(uri: str) -> bool:
    """Whether it begins with az:// and a container, and has no part that is empty or leads elsewhere."""
    return uri.startswith("az://") and not {"", ".", ".."} & set(uri.removeprefix("az://").split("/"))
