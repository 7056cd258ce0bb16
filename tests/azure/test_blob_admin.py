"""Links to one blob of a real blob server."""

import urllib.request
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.azure.test_blob_images import sas, secrets

from glint.adapters.blob_account import BlobAccount
from glint.adapters.blob_admin import link, open_service
from glint.core.errors import GlintError


@pytest.fixture
def account(azurite) -> BlobAccount:
    return BlobAccount(azurite.account, azurite.endpoint, partial(secrets, account_key=azurite.key))


def test_a_link_opens_one_blob_for_a_short_time(account):
    with open_service(account).create_container("linked") as container:
        for name in ("good/ü#1.png", "labels.csv"):
            container.upload_blob(f"line 4/{name}", f"content of {name}")
    address = link(account, "az://linked/line 4/good/ü#1.png", 60)
    with urllib.request.urlopen(address) as answer:
        assert answer.read() == "content of good/ü#1.png".encode()
    rights = parse_qs(urlsplit(address).query)
    assert (rights["sp"], rights["sr"]) == (["r"], ["b"])
    left = datetime.fromisoformat(rights["se"][0]) - datetime.now(UTC)
    assert timedelta(seconds=50) < left <= timedelta(seconds=60)
    other = address.replace("good/%C3%BC%231.png", "labels.csv")
    assert other != address
    for bad in (other, address.replace("sp=r", "sp=rw")):
        with pytest.raises(HTTPError, match="403"):
            urllib.request.urlopen(bad)


@pytest.mark.parametrize("seconds", [0, 901, 86400])
def test_a_link_lasts_at_most_fifteen_minutes(account, seconds):
    with pytest.raises(GlintError, match=f"1 to 900 seconds, got {seconds}"):
        link(account, "az://linked/x.jpg", seconds)


def test_a_sas_cannot_sign_a_link(azurite):
    opened = BlobAccount(azurite.account, azurite.endpoint, partial(secrets, sas_key=sas(azurite, "linked", 1)))
    with pytest.raises(GlintError, match="is not https, must be signed with GLINT_BLOB_KEY"):
        link(opened, "az://linked/x.jpg")
