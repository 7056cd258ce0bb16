"""Signing in with Entra ID: a managed identity whose tokens come from this machine, and azurite, which checks them."""

import base64
import datetime as dt
import json
import subprocess
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from glint.adapters import blob_account
from glint.adapters.blob_account import BlobAccount, no_credentials
from glint.adapters.blob_admin import link
from glint.adapters.blob_upload import upload
from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.emulators.servers import ACCOUNT, ACCOUNT_KEY

IDENTITY = ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "AZURE_CLIENT_ID", "AZURE_TENANT_ID")


def token(audience: str) -> str:
    """What Entra ID would give; azurite checks who it is for and until when, not the signature."""
    now = int(time.time())
    tenant = "11111111-1111-1111-1111-111111111111"
    claims = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{tenant}/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + 3600,
        "oid": "22222222-2222-2222-2222-222222222222",
        "tid": tenant,
        "ver": "1.0",
    }
    parts = (json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + ".c2lnbmVk"


class ManagedIdentity(BaseHTTPRequestHandler):
    """What App Service and Container Apps offer their programs."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        resource = parse_qs(urlsplit(self.path).query)["resource"][0]
        assert self.headers["X-IDENTITY-HEADER"] == "of this machine"
        answer = {"access_token": token(resource), "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
        body = json.dumps(answer | {"resource": resource}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return files


@pytest.fixture(scope="module")
def secure_azurite(emulators, certificate, tmp_path_factory):
    """azurite over https, where it takes tokens; its endpoint."""
    program = emulators.folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    options = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    secure = ["--oauth", "basic", "--cert", str(certificate[0]), "--key", str(certificate[1])]
    place = ["--location", str(tmp_path_factory.mktemp("secure"))]
    command = [emulators.node, str(program), *options, *secure, *place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        url = next(line.split()[-1] for line in process.stdout if "listens on" in line)
        yield f"{url}/{ACCOUNT}"
        process.terminate()


@pytest.fixture
def identity(monkeypatch, certificate):
    """This machine's managed identity, and trust in the certificate."""
    for name in IDENTITY:
        monkeypatch.delenv(name, raising=False)
    blob_account._identity.cache_clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), ManagedIdentity) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_port}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "of this machine")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
        yield ManagedIdentity
        server.shutdown()
    blob_account._identity.cache_clear()


def test_with_neither_key_nor_sas_an_identity_uploads_lists_reads_and_links(secure_azurite, identity, tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(b"pixels")
    account = BlobAccount(ACCOUNT, secure_azurite, no_credentials)
    assert upload(account, str(tmp_path), "az://identity/x").uploaded == 5
    images = Images(ACCOUNT, secure_azurite)
    listed = list(images.list("az://identity/x"))
    assert len(listed) == 5
    read = images.read_many([entry.uri for entry in listed], [entry.etag for entry in listed])
    assert list(read) == [b"pixels"] * 5
    assert identity.asked == 1, "the token is kept until it expires"
    rights = parse_qs(urlsplit(link(account, listed[0].uri, 60)).query)
    # Signed with a user delegation key. azurite does not know the form that this version of the SDK signs.
    assert {"skoid", "sktid", "sig"} <= set(rights)
    assert (rights["sp"], rights["sr"]) == (["r"], ["b"])
    left = dt.datetime.fromisoformat(rights["se"][0]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(seconds=40) < left <= dt.timedelta(seconds=60)


def test_a_link_is_signed_by_an_identity_even_where_a_key_opens_the_account(secure_azurite, identity):
    account = BlobAccount(ACCOUNT, secure_azurite, partial(dict, account_key=ACCOUNT_KEY))
    rights = parse_qs(urlsplit(link(account, "az://identity/x/0.jpg", 60)).query)
    assert {"skoid", "sktid", "sig"} <= set(rights)


@pytest.fixture
def nobody(monkeypatch):
    """A machine without any identity."""
    for name in IDENTITY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")  # asks no metadata address
    blob_account._identity.cache_clear()
    yield
    blob_account._identity.cache_clear()


def test_without_an_identity_the_ways_to_sign_in_are_named(nobody, secure_azurite, capfd):
    with pytest.raises(GlintError, match=r"GLINT_BLOB_KEY and GLINT_BLOB_SAS are not set, .*az login") as caught:
        list(Images(ACCOUNT, secure_azurite).list("az://identity/x"))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_key_signs_no_link_over_https(nobody, secure_azurite):
    account = BlobAccount(ACCOUNT, secure_azurite, partial(dict, account_key=ACCOUNT_KEY))
    with pytest.raises(GlintError, match="no link to it: an Azure identity has to sign it, and there is none"):
        link(account, "az://identity/x/0.jpg", 60)


def test_no_token_is_sent_without_encryption(azurite):
    with pytest.raises(GlintError, match=r"is not https, .*: set GLINT_BLOB_KEY or GLINT_BLOB_SAS"):
        list(Images(azurite.account, azurite.endpoint).list("az://identity/x"))
