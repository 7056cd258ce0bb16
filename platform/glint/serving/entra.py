"""Bearer tokens of Entra ID, in place of API keys: an app role or a delegated scope named like glint's own opens."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import jwt

from glint.serving.keys import SCOPES, Key

LEEWAY_S = 60
KEYS_LAST_S = 24 * 3600
"""That fetched keys open without the authority, which may be away for a while; Microsoft says to ask once a day."""


@dataclass(frozen=True)
class EntraSettings:
    """Whose tokens open: those that `authority` signs for `tenant` and that are meant for `audience`."""

    tenant: str
    audience: str
    authority: str = "https://login.microsoftonline.com"


class EntraTokens:
    """Verifies tokens by the tenant's published keys, fetched once a day and again for a key that is new."""

    def __init__(self, settings: EntraSettings) -> None:
        self._settings = settings
        base = f"{settings.authority.rstrip('/')}/{settings.tenant}"
        self._issuer = f"{base}/v2.0"
        self._keys = jwt.PyJWKClient(f"{base}/discovery/v2.0/keys", timeout=5, lifespan=KEYS_LAST_S)
        self._lock = threading.Lock()

    def find(self, token: str) -> Key | None:
        """Who holds this token and what it opens; None for one that is expired, forged or for somebody else.

        Blocks on the network when the token was signed by a key not seen before. Raises jwt.PyJWKClientConnectionError
        where the authority does not answer.
        """
        try:
            claims = self._claims(token)
        except jwt.PyJWKClientConnectionError:
            raise
        except jwt.PyJWTError:
            return None
        roles = claims.get("roles")
        granted = {*map(str, roles if isinstance(roles, list) else ()), *str(claims.get("scp", "")).split()}
        scopes = tuple(scope for scope in SCOPES if scope in granted)
        name = str(claims.get("azp") or claims.get("oid") or claims["sub"])[:64]
        return Key.model_construct(name=name, sha256="", scopes=scopes, requests_per_s=None)

    def _claims(self, token: str) -> dict[str, Any]:
        with self._lock:
            try:
                key = self._keys.get_signing_key_from_jwt(token)
            except (OSError, ValueError) as error:  # it broke off, or what came are no keys but a proxy's page
                raise jwt.PyJWKClientConnectionError(f"the authority's keys cannot be read: {error}") from None
        return jwt.decode(
            token,
            key.key,
            algorithms=["RS256"],
            audience=self._settings.audience,
            issuer=self._issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
