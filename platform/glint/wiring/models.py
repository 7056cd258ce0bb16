"""Models: found by a name or a folder, pinned, opened where they answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from glint.core.errors import GlintError
from glint.settings import Settings
from glint.wiring.storage import open_registry

if TYPE_CHECKING:
    from glint.core.outcome import ModelRef
    from glint.core.policy import Policy
    from glint.vision.bundle import Bundle
    from glint.vision.decode import Limits
    from glint.vision.predictor import Predictor, Preparer


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


def check_model(model: str, settings: Settings) -> None:
    """Raise GlintError where `open_model` would find none; fetches nothing."""
    if model.startswith("models:/"):
        open_registry(settings).check(model)
    else:
        _directory(model)


def _directory(model: str) -> Path:
    path = Path(model).expanduser().absolute()
    if not path.is_dir():
        raise GlintError(f"--model {model!r} must be models:/NAME@ALIAS, models:/NAME/VERSION or a bundle directory")
    return path


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
