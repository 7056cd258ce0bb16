"""What replicas tell those to come, kept by Ray for all its nodes until it ends."""

from __future__ import annotations

from typing import cast

from ray import cloudpickle
from ray.experimental import internal_kv

from glint.serving.sources import Found

NAMESPACE = b"glint-last-served"


class RaysMemory:
    """live.Memory in the store of Ray's head, which nobody can write to who could not also start actors there."""

    def get(self, key: str, /) -> Found | None:
        """None where nothing is known."""
        kept = internal_kv._internal_kv_get(key, namespace=NAMESPACE)
        return cast(Found, cloudpickle.loads(kept)) if kept else None

    def __setitem__(self, key: str, found: Found, /) -> None:
        """Remember it in the stead of what was."""
        internal_kv._internal_kv_put(key, cloudpickle.dumps(found), namespace=NAMESPACE)
