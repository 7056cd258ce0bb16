"""Which addresses a request may name: az:// prefixes on a list, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from glint.serving.problems import ProblemError

if TYPE_CHECKING:
    from glint.adapters.images import Images


class AllowedUris:
    """Reads blobs below `prefixes`, each az://CONTAINER or az://CONTAINER/PREFIX."""

    def __init__(self, images: Images, prefixes: Sequence[str]) -> None:
        self._images, self._prefixes = images, tuple(prefix.rstrip("/") + "/" for prefix in prefixes)

    def __call__(self, uri: str) -> bytes:
        """The blob's bytes; raises ProblemError 403 for an address not on the list, ImageError as reading does."""
        parts = uri.removeprefix("az://").split("/")
        allowed = uri.startswith("az://") and uri.startswith(self._prefixes) and not {"", ".", ".."} & set(parts)
        if not allowed:
            raise ProblemError(403, "uri_not_allowed", f"{uri[:200]!r} is below no prefix that this server may read")
        return self._images.read(uri)
