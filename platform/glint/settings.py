"""Where things are: endpoints and secrets, from the environment (`GLINT_*`) or a `.env` file, never from a recipe."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict, SettingsError

from glint.core.errors import GlintError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_SYMLINKS_WARNING": "1",
    "AZURE_CORE_COLLECT_TELEMETRY": "0",
}
"""Telemetry of every dependency, off; a person's own setting of any of them stands."""


LOOPBACK_ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's own name for it: where clusters are not enabled, every process listens on 127.0.0.1. Linux heeds it too."""
EDGE = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "glint.serving.edge.middlewares"}
"""What Ray Serve lets see each request before it reads it; its processes inherit the environment."""
OF_SERVICES = re.compile(r"_PORT($|_)|_SERVICE_(HOST|PORT)").search
"""In the names that Kubernetes makes of those of services."""
CLOSE = 0.84
"""From 0 to 1, as difflib has it: GLINT_STORE_URI is as close as this to GLINT_STORE."""


def _web_address(value: str | None) -> str | None:
    if value and not value.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return value


def _without_password(value: str | None) -> str | None:
    """It travels to other processes in the open, and the errors of MLflow name it."""
    if value and "@" in value and re.match(r"\s*https?:", value, re.IGNORECASE):
        raise ValueError("must hold no @: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD hold a password")
    return value


class Settings(BaseSettings):
    """glint's settings. The defaults need no account: everything lies under `./.glint`."""

    model_config = SettingsConfigDict(
        env_prefix="GLINT_", env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    home: Path = Field(default=Path(".glint"), description="SQLite files, MLflow, training runs, caches")
    store: str | None = Field(
        default=None, description="sqlite:///PATH or cosmos://ACCOUNT/DATABASE; default: results.db under home"
    )
    mlflow_uri: Annotated[str | None, AfterValidator(_without_password)] = Field(
        default=None, description="tracking server; default: a SQLite file under home"
    )
    ray_address: str | None = Field(default=None, description="of a running Ray; default: one of glint's own")
    num_cpus: int | None = Field(
        default=None, ge=1, description="logical, of glint's own Ray; default: 4, or twice the cores"
    )
    blob_account: str | None = Field(default=None, description="storage account of az:// addresses")
    blob_endpoint: str | None = Field(
        default=None, description="of a sovereign cloud, a private link or an emulator; default: Azure's public cloud"
    )
    blob_key: SecretStr | None = Field(default=None, description="of the account; goes before blob_sas")
    blob_sas: SecretStr | None = Field(default=None, description="without key and SAS, glint signs in with Entra ID")
    cosmos_endpoint: str | None = Field(default=None, description="of another cloud or an emulator")
    cosmos_key: SecretStr | None = Field(default=None, description="default: Entra ID")
    cosmos_ru: int | None = Field(
        default=None,
        ge=100,
        description="RU/s of the database: jobs together take 80%; default: what it says, else 4000",
    )
    cosmos_proxy: bool = Field(default=False, description="reach Cosmos DB through the proxy of HTTPS_PROXY")
    store_deadline_s: float = Field(default=120, gt=0, description="that a write to Cosmos DB is tried again for")
    outcome_ttl_days: int | None = Field(
        default=None, ge=1, le=10_000, description="days that outcomes live, of jobs that name none"
    )
    batch_inputs: str = Field(
        default="", description="folders and az:// prefixes that callers of the batch API may name, with commas between"
    )
    batch_models: str = Field(
        default="models:/", description="beginnings of models:/ and folders that its deployments may have"
    )
    batch_max_running: int = Field(default=1, ge=1, le=100, description="jobs of the batch API that run at once")
    node_price: float | None = Field(
        default=None, ge=0, description="of a node an hour, in any currency, for what a batch job says it cost"
    )
    webhook_hosts: str = Field(default="", description="hosts that may be told of a job's end, with commas between")
    webhook_secret: SecretStr | None = Field(default=None, description="signs what they are told")
    read_threads: int = Field(default=16, ge=1, le=256, description="images read at once by one process")
    max_pixels: int = Field(default=100_000_000, ge=1, description="larger images are too_large")
    max_bytes: int = Field(default=64_000_000, ge=1, description="larger files and request bodies are too_large")
    serve_uris: tuple[str, ...] = Field(
        default=(), description="JSON list of az:// prefixes below which requests may name images; default: none"
    )
    serve_max_wait_s: float = Field(default=2, gt=0, description="an image that would wait longer is refused")
    serve_timeout_s: float = Field(default=60, gt=0, description="in which a request must be answered")
    serve_body_timeout_s: float = Field(default=30, gt=0, description="in which a request's body must have arrived")
    serve_ingress: Literal["auto", "haproxy", "proxy"] = Field(
        default="auto",
        description="what takes requests on a Ray of glint's own: HAProxy (Linux, IPv4) or Serve's Python proxy",
    )
    serve_gpu_share: float = Field(
        default=0.5, gt=0, le=1, description="of a GPU for each replica, where there are any"
    )
    serve_follow_s: float = Field(default=15, gt=0, description="pause between looks whether an alias has moved")
    otlp_endpoint: Annotated[str | None, AfterValidator(_web_address)] = Field(
        default=None,
        description="OpenTelemetry collector that traces of requests go to, such as http://HOST:4318",
    )
    otlp_share: float = Field(default=0.1, ge=0, le=1, description="of the requests without a trace of their caller's")
    canary_max_errors: float = Field(
        default=0.02, ge=0, le=1, description="share of its latest 200 images that a challenger may fail on"
    )
    canary_max_slowdown: float = Field(
        default=2, gt=0, description="median work of a challenger on an image, in the champion's"
    )
    entra_tenant: str | None = Field(default=None, description="whose tokens open a served glint, beside API keys")
    entra_audience: str | None = Field(default=None, description="that these tokens must be meant for")
    entra_authority: Annotated[str, AfterValidator(_web_address)] = Field(
        default="https://login.microsoftonline.com",
        description="that signs them; of another cloud",
    )
    api_key: SecretStr | None = Field(default=None, description="with which clients open a glint that asks for one")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a Ray worker with absolute paths and without secrets, which that machine's environment holds."""
        plain = {name: value for name, value in self if not isinstance(value, SecretStr)}
        return _restore, ({**plain, "home": self.home_path},)

    @property
    def home_path(self) -> Path:
        """`home`, absolute: workers run in other directories."""
        return self.home.expanduser().absolute()

    @property
    def store_uri(self) -> str:
        """`store`, or its default."""
        return self.store or f"sqlite:///{self.home_path / 'results.db'}"

    @property
    def tracking_uri(self) -> str:
        """`mlflow_uri`, or its default."""
        return self.mlflow_uri or f"sqlite:///{self.home_path / 'mlflow.db'}"


def _restore(plain: dict[str, Any]) -> Settings:
    return Settings(**plain)


def read_settings() -> Settings:
    """The settings of this environment; raises GlintError naming the variable that is wrong."""
    try:
        return Settings()
    except SettingsError as error:
        raise GlintError(f"{error}: a list must be JSON") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = f"GLINT_{'_'.join(map(str, first['loc'])).upper()}"
        said = first["msg"].removeprefix("Value error, ")
        got = "" if "@" in str(first["input"]) else f", got {first['input']!r}"  # which may be a password
        raise GlintError(f"{name}: {said[0].lower()}{said[1:]}{got}") from None


def mistyped() -> dict[str, str]:
    """Names in the environment or in `.env` that are none of a setting, with the one that each is close to.

    Others are left alone, as those are that Kubernetes gives to what runs beside a service named glint.
    """
    known = [f"GLINT_{name.upper()}" for name in Settings.model_fields]
    named = {name.upper() for name in (*os.environ, *DotEnvSettingsSource(Settings).env_vars)}
    unknown = sorted(name for name in named.difference(known) if name.startswith("GLINT_") and not OF_SERVICES(name))
    close = {name: get_close_matches(name, known, 1, CLOSE) for name in unknown}
    return {name: found[0] for name, found in close.items() if found}


def quieten(settings: Settings) -> None:
    """Switch telemetry off and keep a Ray of glint's own on the loopback interface.

    To be called before the libraries are imported, most of which look at the environment only then.
    """
    for name, value in (QUIET | EDGE).items():
        os.environ.setdefault(name, value)
    if settings.otlp_endpoint:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = settings.otlp_endpoint
        os.environ.setdefault("RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH", "glint.serving.tracing.span_processors")
        os.environ.setdefault("RAY_SERVE_TRACING_SAMPLING_RATIO", str(settings.otlp_share))
    if settings.ray_address and _has_ray_token() and _wants_token(settings.ray_address):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    if settings.ray_address and LOOPBACK_ALONE not in os.environ and _on_loopback_alone(settings.ray_address):
        os.environ[LOOPBACK_ALONE] = "0"
    if not settings.ray_address:
        os.environ.setdefault(LOOPBACK_ALONE, "0")
        # Several training workers talk through gloo, which would pick the interface of this machine's own name.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        # Without a dashboard nobody reads these, and gathering them takes from the cores that train.
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
        # Ray would give all its workers a low priority, training too; the tasks that feed it stand back instead.
        os.environ.setdefault("RAY_worker_niceness", "0")


def _on_loopback_alone(address: str) -> bool:
    from glint.adapters.network import on_loopback_alone

    return on_loopback_alone(address)


def _has_ray_token() -> bool:
    """Whether Ray would find the token of its clusters, where it looks for it."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def _wants_token(address: str) -> bool:
    """Whether a Ray turns those away who send none; a driver that asks for tokens where there are none has no workers.

    `auto` is one of this machine, where `ray start` asks for the token that it finds.
    """
    from glint.adapters.network import ray_wants_token

    return address == "auto" or ray_wants_token(address)
