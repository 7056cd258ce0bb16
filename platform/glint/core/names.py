"""Names that people give to runs and jobs, which become names of folders."""

from __future__ import annotations

import re

from glint.core.errors import GlintError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(option: str, name: str) -> None:
    """Raise GlintError unless `name` is safe as the name of a folder."""
    if not _NAME.fullmatch(name):
        raise GlintError(
            f"{option} {name!r} must be at most 100 letters, digits, dots, dashes and underscores, the first a "
            "letter or a digit"
        )
