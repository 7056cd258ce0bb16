"""Bearer tokens of Entra ID, in place of API keys: an app role or a delegated scope named like glint's own opens."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from time import monotonic
from typing import Any

import jwt

from glint.core.errors import one_line
from glint.serving.keys import SCOPES, Key

LOG = logging.getLogger("glint.serving")
LEEWAY_S = 60
KEYS_LAST_S = 24 * 3600
"""That fetched keys open without the authority, which may be away for a while; Microsoft says to ask once a day."""
PAUSE_S = 10
"""Between two fetches: tokens of keys that nobody knows cause no more of them."""


@dataclass(frozen=True)
class EntraSettings:
    """Whose tokens open: those that `authority` signs for `tenant` and that are meant for `audience`."""

    tenant: str
    audience: str
    authority: str = "https://login.microsoftonline.com"


class EntraTokens:
    """Verifies tokens by the tenant's published keys, fetched once a day and again for a key that is new.

    Used by one event loop. A token whose key is known waits for no other's.
    """

    def __init__(self, settings: EntraSettings) -> None:
        self._settings = settings
        base = f"{settings.authority.rstrip('/')}/{settings.tenant}"
        self._issuer = f"{base}/v2.0"
        self._authority = jwt.PyJWKClient(f"{base}/discovery/v2.0/keys", cache_jwk_set=False, timeout=5)
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_s = self._asked_s = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, token: str) -> Key | None:
        """Who holds this token and what it opens; None for one that is expired, forged or for somebody else.

        Raises jwt.PyJWKClientConnectionError where the authority does not say what its keys are.
        """
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = self._known(key_id) or await self._new(key_id)
            claims = self._claims(token, key) if key else None
        except jwt.PyJWKClientConnectionError:
            raise
        except jwt.PyJWTError:
            return None
        if claims is None:
            return None
        roles = claims.get("roles")
        granted = {*map(str, roles if isinstance(roles, list) else ()), *str(claims.get("scp", "")).split()}
        scopes = tuple(scope for scope in SCOPES if scope in granted)
        name = str(claims.get("azp") or claims.get("oid") or claims["sub"])[:64]
        return Key.model_construct(name=name, sha256="", scopes=scopes, requests_per_s=None)

    def _known(self, key_id: str | None) -> jwt.PyJWK | None:
        return self._keys.get(key_id) if monotonic() - self._fetched_s < KEYS_LAST_S else None

    async def _new(self, key_id: str | None) -> jwt.PyJWK | None:
        """A key that is not known here: the authority may have it by now."""
        if self._fetching is None and monotonic() - self._asked_s >= PAUSE_S:
            self._fetching = asyncio.create_task(self._fetch())
        if self._fetching:  # goes on for the others when this caller has left
            await asyncio.shield(self._fetching)
        if self._fetched_s < self._asked_s:
            raise jwt.PyJWKClientConnectionError("the authority's keys cannot be read")
        return self._keys.get(key_id)

    async def _fetch(self) -> None:
        self._asked_s = monotonic()
        try:
            found = await asyncio.to_thread(self._authority.get_signing_keys)
        except (OSError, ValueError, jwt.PyJWTError) as error:  # it broke off, or what came are no keys
            LOG.warning("the keys of Entra ID cannot be fetched: %s", one_line(error))
        else:
            self._keys, self._fetched_s = {key.key_id: key for key in found}, monotonic()
        finally:
            self._fetching = None

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        return jwt.decode(
            token,
            key.key,
            algorithms=["RS256"],
            audience=self._settings.audience,
            issuer=self._issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
