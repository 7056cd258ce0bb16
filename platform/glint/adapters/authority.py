"""Where Entra ID signs in: each sovereign cloud has a place of its own."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

AUTHORITIES = {
    "chinacloudapi.cn": "login.chinacloudapi.cn",
    "documents.azure.cn": "login.chinacloudapi.cn",
    "usgovcloudapi.net": "login.microsoftonline.us",
    "documents.azure.us": "login.microsoftonline.us",
}
"""By the end of the endpoints of Blob Storage and of Cosmos DB."""


def authority_options(url: str) -> dict[str, str]:
    """What a credential of azure-identity for this endpoint is to be given; AZURE_AUTHORITY_HOST goes first."""
    host = urlsplit(url).hostname or ""
    sovereign = next((login for end, login in AUTHORITIES.items() if host.endswith(f".{end}")), None)
    found = os.environ.get("AZURE_AUTHORITY_HOST") or sovereign
    return {"authority": found} if found else {}
