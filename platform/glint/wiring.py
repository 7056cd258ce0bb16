"""Where implementations are chosen: settings in, working parts out. No other module does this."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from glint.core.errors import GlintError
from glint.settings import Settings, quieten

if TYPE_CHECKING:
    from glint.adapters.blob_account import BlobAccount
    from glint.adapters.cosmos_client import CosmosAddress
    from glint.adapters.images import Images
    from glint.adapters.registry import Registry
    from glint.core.allowed import Allowed
    from glint.core.outcome import ModelRef
    from glint.core.policy import Policy
    from glint.core.stores import ResultStore
    from glint.core.submission import Drivers
    from glint.serving.batch_desk import Desk
    from glint.serving.entra import EntraSettings
    from glint.serving.online import Serving
    from glint.serving.sources import Found, Source
    from glint.serving.supervisor import Supervisor
    from glint.vision.bundle import Bundle
    from glint.vision.decode import Limits
    from glint.vision.predictor import Predictor, Preparer

DESK_DEADLINE_S = 10.0
"""For who asks over HTTP: a job waits longer for its store."""


def open_images(settings: Settings) -> Images:
    """The reader of image addresses."""
    from glint.adapters.images import Images

    return Images(
        account=settings.blob_account,
        endpoint=settings.blob_endpoint,
        credentials=blob_credentials,
        read_threads=settings.read_threads,
        max_bytes=settings.max_bytes,
    )


def blob_credentials() -> dict[str, str]:
    """The storage account's secrets, from the environment of the machine that reads images."""
    settings = Settings()
    secrets = {"account_key": settings.blob_key, "sas_key": settings.blob_sas}
    return {name: secret.get_secret_value() for name, secret in secrets.items() if secret}


def open_blob_account(settings: Settings) -> BlobAccount:
    """The storage account that uploads go to."""
    from glint.adapters.blob_account import BlobAccount

    if not settings.blob_account:
        raise GlintError("az:// needs a storage account: set GLINT_BLOB_ACCOUNT to its name")
    return BlobAccount(settings.blob_account, settings.blob_endpoint, blob_credentials)


def open_store(settings: Settings) -> ResultStore:
    """The result store that `GLINT_STORE` names."""
    if settings.store_uri.startswith("cosmos://"):
        return _cosmos_store(settings)
    scheme, _, path = settings.store_uri.partition(":///")
    if scheme != "sqlite" or not path:
        raise GlintError(f"GLINT_STORE {settings.store_uri!r} must be sqlite:///PATH or cosmos://ACCOUNT/DATABASE")
    from glint.adapters.sqlite_store import SqliteStore

    return SqliteStore(Path(path).absolute())


def check_store_answers(settings: Settings) -> str | None:
    """Open the result store and read a little: raises GlintError, within seconds, that names the setting to change.

    Returns what a person should know about it before a job writes.
    """
    from glint.core.stores import Bridge

    store, bridge = open_store(settings), Bridge()
    try:
        bridge.run(store.jobs(limit=1))
        return bridge.run(_guessed_budget(settings, store))
    finally:
        bridge.run(store.close())
        bridge.close()


async def _guessed_budget(settings: Settings, store: ResultStore) -> str | None:
    """How much jobs write where nobody knows how much the database takes."""
    if settings.cosmos_ru or not settings.store_uri.startswith("cosmos://"):
        return None
    from glint.adapters.cosmos_budget import DEFAULT_RU, WRITERS_SHARE
    from glint.adapters.cosmos_store import CosmosStore

    assert isinstance(store, CosmosStore)
    if await store.database_ru() is not None:
        return None
    return (
        "GLINT_COSMOS_RU is not set and the account does not say how many RU/s the database has: jobs together write "
        f"with {DEFAULT_RU * WRITERS_SHARE:,.0f} at most, {WRITERS_SHARE:.0%} of {DEFAULT_RU:,}"
    )


def _cosmos_store(settings: Settings) -> ResultStore:
    from glint.adapters.cosmos_store import CosmosStore, WriteLimits

    limits = WriteLimits(settings.cosmos_ru, settings.store_deadline_s)
    return CosmosStore(cosmos_address(settings), settings.home_path / "dead-letters", limits)


def cosmos_address(settings: Settings) -> CosmosAddress:
    """Where the database of `GLINT_STORE` lies; raises GlintError when that is no cosmos:// address."""
    from glint.adapters.cosmos_client import CosmosAddress, parse_address

    account, database = parse_address(settings.store_uri)
    return CosmosAddress(account, database, settings.cosmos_endpoint, cosmos_key, settings.cosmos_proxy)


def cosmos_key() -> str | None:
    """The account's key, from the environment of the machine that uses it; None = Entra ID."""
    key = Settings().cosmos_key
    return key.get_secret_value() if key else None


def open_registry(settings: Settings) -> Registry:
    """The MLflow server that `GLINT_MLFLOW_URI` names."""
    quieten(settings)
    from glint.adapters.registry import Registry

    return Registry(settings.tracking_uri, settings.home_path)


def open_limits(settings: Settings) -> Limits:
    """How large an image may be."""
    from glint.vision.decode import Limits

    return Limits(max_pixels=settings.max_pixels, max_bytes=settings.max_bytes)


@dataclass(frozen=True)
class Model:
    """A model that was found: its address pinned to a version, its bundle, and what it is called in outcomes."""

    uri: str
    bundle: Bundle
    name: str | None = None
    version: str | None = None
    engine: str = "auto"

    @property
    def ref(self) -> ModelRef:
        """The model as outcomes name it."""
        from glint.vision.predictor import model_ref

        return model_ref(self.bundle, self.name, self.version, self.engine)


def open_model(model: str, settings: Settings, engine: str = "auto") -> Model:
    """Find a model by a bundle directory or a registry URI, without loading its weights.

    A registered version decides by the policy that the registry holds active, a bundle directory by its own.
    """
    from glint.core.engines import check_engine
    from glint.core.policy import Policy
    from glint.vision.bundle import Bundle

    check_engine(engine)
    if not model.startswith("models:/"):
        directory = _directory(model)
        return Model(str(directory), Bundle(directory), engine=engine)
    found = open_registry(settings).find(model)
    bundle = Bundle(found.bundle, Policy.model_validate_json(found.policy) if found.policy else None)
    return Model(f"models:/{found.name}/{found.version}", bundle, found.name, found.version, engine)


def open_predictor(model: str, settings: Settings | None = None, engine: str = "auto") -> Predictor:
    """The model named by a bundle directory or a registry URI, ready to answer."""
    settings = settings or Settings()
    return pinned(open_model(model, settings, engine), settings)()


def pinned(found: Model, settings: Settings) -> Callable[[], Predictor]:
    """What opens this very version and policy, with the engine that it was found for, wherever it is called."""
    return partial(open_pinned, _pin(found), (found.name, found.version), settings, found.engine)


def uncalibrated(found: Model, settings: Settings) -> Callable[[], Predictor]:
    """The same at a temperature of 1: it gives the probabilities that a temperature is fitted to."""
    from glint.core.policy import Policy
    from glint.vision.bundle import Bundle

    return pinned(replace(found, bundle=Bundle(found.bundle.directory, Policy())), settings)


def pinned_preparer(found: Model, settings: Settings) -> Callable[[], Preparer]:
    """The same for what decodes alone."""
    return partial(open_preparer, _pin(found), settings)


@dataclass(frozen=True)
class Pin:
    """What finds one bundle again on any node, with its policy."""

    uri: str
    directory: Path
    policy: Policy

    def bundle(self, settings: Settings) -> Bundle:
        """The bundle; the registry, and all that MLflow loads, is left alone where it lies here."""
        from glint.vision.bundle import Bundle

        here = self.directory.is_dir()
        return Bundle(self.directory if here else open_model(self.uri, settings).bundle.directory, self.policy)


def _pin(found: Model) -> Pin:
    return Pin(found.uri, found.bundle.directory, found.bundle.policy)


def open_pinned(pin: Pin, who: tuple[str | None, str | None], settings: Settings, engine: str) -> Predictor:
    """A model that was found before, ready to answer; `who` is its name and version."""
    from glint.vision.predictor import Predictor

    return Predictor(pin.bundle(settings), *who, open_limits(settings), engine)


def open_preparer(pin: Pin, settings: Settings) -> Preparer:
    """What decodes for it."""
    from glint.vision.predictor import Preparer

    return Preparer(pin.bundle(settings), open_limits(settings))


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
    return Source(found.name or found.bundle.info.name, partial(find_served, model, settings, engine), alias or None)


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

    entra = _entra(settings) if keys else None
    return Serving(
        limits=BodyLimits(settings.max_bytes, settings.serve_body_timeout_s),
        access=Access(keys_path(settings) if keys else None, entra, log),
        images=open_images(settings),
        uri_prefixes=settings.serve_uris,
        max_wait_s=settings.serve_max_wait_s,
        follow_s=settings.serve_follow_s,
        request_timeout_s=settings.serve_timeout_s,
    )


def keys_path(settings: Settings) -> Path:
    """The file of API keys."""
    return settings.home_path / "keys.json"


def _entra(settings: Settings) -> EntraSettings | None:
    from glint.serving.entra import EntraSettings

    if not settings.entra_tenant:
        return None
    if not settings.entra_audience:
        raise GlintError(f"GLINT_ENTRA_TENANT {settings.entra_tenant} needs GLINT_ENTRA_AUDIENCE: who tokens are for")
    return EntraSettings(settings.entra_tenant, settings.entra_audience, settings.entra_authority)


def start_ray(settings: Settings, with_jobs: bool = False) -> None:
    """Join the Ray that `GLINT_RAY_ADDRESS` names, or start one on this machine; nothing to do where one is joined.

    `with_jobs`: one of glint's own takes submissions of jobs too.
    """
    quieten(settings)
    import ray

    from glint.adapters import ray_start

    if ray.is_initialized():
        return
    if settings.ray_address:
        ray_start.join_ray(settings.ray_address)
        return
    if settings.serve_ingress == "haproxy":  # Serve's processes learn it from the environment of their Ray
        from glint.serving.haproxy import use_haproxy

        use_haproxy()
    ray_start.start_ray(settings.num_cpus, with_jobs)


def open_drivers(settings: Settings) -> Drivers:
    """Drivers of batch jobs as Ray jobs, on the Ray that this process belongs to."""
    import ray

    from glint.adapters.ray_jobs import RayJobs

    return RayJobs(ray.get_runtime_context().gcs_address, driver_environment(settings))


def driver_environment(settings: Settings) -> dict[str, str]:
    """What a driver reads its settings from; secrets are in the environment of the node that it runs on."""
    plain = {name: value for name, value in settings if value is not None and not isinstance(value, SecretStr)}
    absolute = {"home": settings.home_path, "store": settings.store_uri, "mlflow_uri": settings.tracking_uri}
    return {
        f"GLINT_{name.upper()}": _written(value) for name, value in {**plain, **absolute, "ray_address": "auto"}.items()
    }


def _written(value: object) -> str:
    return json.dumps(value) if isinstance(value, tuple) else str(value)


def open_allowed(settings: Settings) -> Allowed:
    """What callers of the batch API may name."""
    from glint.core.allowed import Allowed, listed

    hosts = listed(settings.webhook_hosts)
    return Allowed(listed(settings.batch_inputs), listed(settings.batch_models), hosts)


def check_webhooks(settings: Settings) -> None:
    """Raise GlintError where hosts may be told of a job's end, and nothing signs what they are told."""
    if settings.webhook_hosts and settings.webhook_secret is None:
        raise GlintError("GLINT_WEBHOOK_HOSTS needs GLINT_WEBHOOK_SECRET, which signs what they are told")


def open_desk(settings: Settings) -> Desk:
    """What the batch API stands before, in a process that belongs to a Ray."""
    from glint.serving.batch_desk import Desk

    check_webhooks(settings)
    hasty = settings.model_copy(update={"store_deadline_s": min(DESK_DEADLINE_S, settings.store_deadline_s)})
    return Desk(open_store(hasty), open_drivers(settings), open_allowed(settings))


def open_supervisor(settings: Settings) -> Supervisor:
    """What supervises its jobs, with a store of its own: it lives on another event loop."""
    from glint.core.books import Books
    from glint.serving.supervisor import Supervisor
    from glint.serving.webhook import Webhook

    secret = Settings().webhook_secret
    webhook = Webhook(secret.get_secret_value() if secret else "")
    books = Books(open_store(settings))
    return Supervisor(books, open_drivers(settings), webhook.notify, settings.batch_max_running)


def check_store(settings: Settings) -> None:
    """Raise GlintError when the running Ray has several nodes and the result store is a file of one of them."""
    import ray

    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    if nodes > 1 and settings.store_uri.startswith("sqlite:"):
        raise GlintError(
            f"GLINT_STORE {settings.store_uri} is a file of one machine, and the Ray at GLINT_RAY_ADDRESS has {nodes} "
            "nodes: name a store that all of them reach"
        )


def _directory(model: str) -> Path:
    path = Path(model).expanduser().absolute()
    if not path.is_dir():
        raise GlintError(f"--model {model!r} must be models:/NAME@ALIAS, models:/NAME/VERSION or a bundle directory")
    return path
