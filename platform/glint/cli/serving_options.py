"""What the options of `glint serve` mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glint.settings import Settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def needs_keys(host: str, auth: bool | None, settings: Settings) -> bool:
    """Whether requests need a key; raises GlintError where they do and none can be had."""
    from glint.core.errors import GlintError
    from glint.serving.keys import read_keys
    from glint.wiring import keys_path

    wanted = auth if auth is not None else host not in LOOPBACK
    if wanted and not settings.entra_tenant and not read_keys(keys_path(settings)):
        choices = "make one with `glint keys add NAME`, set GLINT_ENTRA_TENANT, or let anybody in with --no-auth"
        raise GlintError(f"--host {host} asks for API keys, and there is none: {choices}")
    return wanted


def share(option: str, text: str, challengers: Sequence[str] | None) -> float:
    """A percentage as a number from 0 to 1; raises GlintError for anything else, and for one of no challenger."""
    from glint.core.errors import GlintError

    number = text.removesuffix("%")
    value = float(number) / 100 if number.replace(".", "", 1).isdecimal() and number != text else -1
    if not 0 <= value <= 1:
        raise GlintError(f"{option} {text!r} must be a percentage from 0% to 100%, such as 10%")
    if value and not challengers:
        raise GlintError(f"{option} {text} needs a --challenger that it is for")
    return value


def num_replicas(text: str) -> int | tuple[int, int]:
    """A number, or a least and a most; raises GlintError for anything else."""
    from glint.core.errors import GlintError

    parts = text.split(":")
    numbers = [int(part) for part in parts if part.isdecimal()]
    if len(numbers) != len(parts) or len(parts) > 2 or min(numbers) < 1 or numbers != sorted(numbers):
        raise GlintError(f"--replicas {text!r} must be a number from 1, or MIN:MAX")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
