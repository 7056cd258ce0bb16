import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from glint.core.errors import GlintError
from glint.settings import Settings, mistyped, read_settings
from glint.wiring import open_serving


def test_defaults_lie_under_home(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.store_uri == f"sqlite:///{tmp_path}/results.db"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_settings_travel_without_secrets_which_the_other_side_has_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLINT_BLOB_KEY", "of-the-driver")
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(Settings(home=Path("here"), blob_account="plant"))
    assert b"of-the-driver" not in data
    monkeypatch.setenv("GLINT_BLOB_KEY", "of-the-worker")
    monkeypatch.chdir("/")
    arrived = pickle.loads(data)  # noqa: S301 - our own, a line above
    assert arrived.blob_key.get_secret_value() == "of-the-worker"
    assert (arrived.home, arrived.blob_account) == (tmp_path / "here", "plant")


@pytest.mark.parametrize("name", ["GLINT_OTLP_ENDPOINT", "GLINT_ENTRA_AUTHORITY"])
def test_an_address_that_is_none_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "foo:4318")
    with pytest.raises(GlintError, match=f"^{name}: .*must begin with http:// or https://, got 'foo:4318'$"):
        read_settings()
    monkeypatch.setenv(name, "https://foo:4318")
    read_settings()


@pytest.mark.parametrize("scheme", ["https:", "HTTP:", " http:"])
def test_a_password_in_an_address_is_refused_and_not_shown(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLINT_MLFLOW_URI", f"{scheme}//name:hid/den@mlflow.example.com")
    with pytest.raises(GlintError, match=r"^GLINT_MLFLOW_URI: must hold no @: .* hold a password$") as raised:
        read_settings()
    assert "den@" not in str(raised.value)
    with pytest.raises(ValidationError) as bare:
        Settings()
    assert "den@" not in str(bare.value)
    monkeypatch.setenv("GLINT_MLFLOW_URI", "sqlite:////home/a@b/mlflow.db")
    read_settings()


@pytest.mark.parametrize("half", ["tenant", "audience"])
def test_half_of_what_entra_needs_is_named(half: str) -> None:
    missing = "AUDIENCE" if half == "tenant" else "TENANT"
    with pytest.raises(GlintError, match=f"GLINT_ENTRA_{half.upper()} x needs GLINT_ENTRA_{missing}"):
        open_serving(Settings(**{f"entra_{half}": "x"}))


def test_a_list_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLINT_SERVE_URIS", "az://images")
    with pytest.raises(GlintError, match=r'"serve_uris".*a list must be JSON$'):
        read_settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLINT_BLOB_SAS", "sig=hidden")
    monkeypatch.setenv("GLINT_WEBHOOK_SECRET", "hidden")
    assert "hidden" not in repr(Settings())


def test_a_mistyped_name_is_told_with_the_one_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mistyped() == {}
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("GLINT_STORE_URI=sqlite:///a.db\nPATH_OF_MINE=1\n")
    monkeypatch.setenv("GLINT_SERVE_MAXWAIT_S", "1")
    for name in ("GLINT_SERVICE_HOST", "GLINT_MLFLOW_PORT", "GLINT_COSMOS_PORT_443_TCP", "GLINT_WEBHOOK_PORT"):
        monkeypatch.setenv(name, "10.0.0.1")  # Kubernetes' own
    monkeypatch.setenv("GLINT_URL", "http://127.0.0.1:8000")  # of options
    monkeypatch.setenv("GLINT_STORE", "sqlite:///b.db")
    assert mistyped() == {"GLINT_SERVE_MAXWAIT_S": "GLINT_SERVE_MAX_WAIT_S", "GLINT_STORE_URI": "GLINT_STORE"}
