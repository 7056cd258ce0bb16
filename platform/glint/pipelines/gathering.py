"""What the ranks of a training found, put together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.distributed


def gather_rows(part: np.ndarray[Any, Any], num_rows: int) -> np.ndarray[Any, Any]:
    """All rows (num_rows, …) on every rank, from each rank's share: rows rank, rank + world size, and so on."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return part
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, part)
    rows = np.empty((num_rows, *part.shape[1:]), part.dtype)
    for rank, found in enumerate(parts):
        rows[rank :: len(parts)] = found
    return rows
