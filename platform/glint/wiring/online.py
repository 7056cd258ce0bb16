"""What answers HTTP requests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from glint.core.errors import GlintError
from glint.settings import Settings
from glint.wiring.models import open_model, pinned
from glint.wiring.storage import open_images

if TYPE_CHECKING:
    from glint.serving.entra import EntraSettings
    from glint.serving.online import Serving
    from glint.serving.sources import Found, Source


def serving_sources(
    models: Sequence[str],
    settings: Settings,
    challengers: Sequence[str] = (),
    canary: float = 0.0,
    shadow: float = 0.0,
    engine: str = "auto",
) -> list[Source]:
    """Models to serve, each under its name; each look at one finds where its alias points then.

    A challenger is tried on the shares `canary` and `shadow` of the images of the model of its name. Raises GlintError
    for a model that does not exist, for two of one name, and for a challenger of none.
    """
    from glint.serving.sources import Challenge, by_name, with_challengers

    challenge = partial(
        Challenge,
        canary=canary,
        shadow=shadow,
        max_errors=settings.canary_max_errors,
        max_slowdown=settings.canary_max_slowdown,
    )
    champions = by_name((uri, _source(uri, settings, engine)) for uri in models)
    found = ((uri, _source(uri, settings, engine)) for uri in challengers)
    return list(with_challengers(champions, found, challenge).values())


def _source(model: str, settings: Settings, engine: str) -> Source:
    from glint.serving.sources import Source

    found = open_model(model, settings, engine)
    alias = model.partition("@")[2] if found.name else ""
    return Source(
        found.name or found.bundle.info.name,
        partial(find_served, model if found.name else found.uri, settings, engine),
        alias or None,
    )


def find_served(model: str, settings: Settings, engine: str = "auto") -> Found:
    """What a model to serve means now."""
    from glint.serving.sources import Found

    found = open_model(model, settings, engine)
    return Found(f"{found.uri} with policy {found.bundle.policy.digest}", pinned(found, settings))


def open_serving(settings: Settings, keys: bool = False, log: Path | None = None) -> Serving:
    """How models are served; with `keys` to those alone who bear a key or a token, with `log` an access log."""
    from glint.serving.bodies import BodyLimits
    from glint.serving.guard import Access
    from glint.serving.online import Serving

    entra = _entra(settings)
    return Serving(
        limits=BodyLimits(settings.max_bytes, settings.serve_body_timeout_s),
        access=Access(keys_path(settings), entra, log) if keys else Access(log=log),
        images=open_images(settings),
        uri_prefixes=settings.serve_uris,
        max_wait_s=settings.serve_max_wait_s,
        gpu_share=settings.serve_gpu_share,
        follow_s=settings.serve_follow_s,
        request_timeout_s=settings.serve_timeout_s,
    )


def keys_path(settings: Settings) -> Path:
    """The file of API keys."""
    return settings.home_path / "keys.json"


def _entra(settings: Settings) -> EntraSettings | None:
    from glint.serving.entra import EntraSettings

    if not settings.entra_tenant:
        if settings.entra_audience:
            raise GlintError(f"GLINT_ENTRA_AUDIENCE {settings.entra_audience} needs GLINT_ENTRA_TENANT: who signs")
        return None
    if not settings.entra_audience:
        raise GlintError(f"GLINT_ENTRA_TENANT {settings.entra_tenant} needs GLINT_ENTRA_AUDIENCE: who tokens are for")
    return EntraSettings(settings.entra_tenant, settings.entra_audience, settings.entra_authority)
