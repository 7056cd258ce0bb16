import pytest

from glint.adapters.authority import authority_options


@pytest.mark.parametrize(
    ("endpoint", "authority"),
    [
        ("https://plant.blob.core.windows.net", None),
        ("https://plant.documents.azure.com:443", None),
        ("https://plant.blob.core.chinacloudapi.cn", "login.chinacloudapi.cn"),
        ("https://plant.documents.azure.cn", "login.chinacloudapi.cn"),
        ("https://plant.blob.core.usgovcloudapi.net", "login.microsoftonline.us"),
        ("https://plant.documents.azure.us:443", "login.microsoftonline.us"),
    ],
)
def test_a_sovereign_cloud_has_its_own_place_to_sign_in(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, authority: str | None
) -> None:
    monkeypatch.delenv("AZURE_AUTHORITY_HOST", raising=False)
    assert authority_options(endpoint).get("authority") == authority
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "login.example")
    assert authority_options(endpoint) == {"authority": "login.example"}
