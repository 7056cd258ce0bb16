"""Who asks: for records of what was changed."""

from __future__ import annotations

import getpass
import os


def user() -> str:
    """The name of this account, or its number where it has no name, as in many a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
