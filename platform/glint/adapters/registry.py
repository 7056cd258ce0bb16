"""MLflow's registry: models, their versions, aliases and policies."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glint.adapters.model_files import model_files
from glint.adapters.tracking import MANIFEST, Tracking, quiet
from glint.core.errors import GlintError

BUNDLE = "bundle"
POLICIES, GATE = "policies", "gate"
"""Folders of a run's files: the policies made for its model, and the gate's reports."""
ACTIVE_POLICY = "glint.policy"
MAX_EARLIER = 1000
"""Versions that an alias remembers; a tag holds 100,000 letters."""
OWN_POLICY = 0
"""The number of the policy that a bundle came with; those made later count from 1."""
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's codes for what is not there, or could not be by its name."""
_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class RegisteredModel:
    """A version of a registered model, where its bundle lies on this machine, and its active policy.

    `policy` is JSON, None where the bundle's own (number 0) is active.
    """

    name: str
    version: str
    bundle: Path
    policy_number: int = OWN_POLICY
    policy: str | None = None


class Registry(Tracking):
    """Models of one MLflow server: versions, the aliases that name them, and the policies that they decide by."""

    def register(
        self,
        run: str,
        name: str,
        bundle: Path,
        model_code: Path,
        packages: Sequence[Path],
        requirements: Sequence[str],
        example: bytes,
    ) -> str:
        """Log a bundle as a pyfunc model of `run` and register it; returns the new version.

        The model is code, not a pickle: `model_code` is run by plain MLflow when it scores, with `packages` beside it.
        glint itself reads the bundle alone and runs none of it.
        """
        import mlflow
        import pandas as pd
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema

        signature = ModelSignature(
            Schema([ColSpec("binary", "image")]), Schema([ColSpec("string", "label"), ColSpec("double", "confidence")])
        )
        mlflow.set_tracking_uri(self.tracking_uri)  # of the whole process: another registry may have set its own
        with quiet(), mlflow.start_run(run_id=run):
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(model_code),
                artifacts={BUNDLE: str(bundle)},
                code_paths=[str(package) for package in packages],
                pip_requirements=list(requirements),
                signature=signature,
                input_example=pd.DataFrame({"image": [example]}),
            )
        self._make(name)
        return str(self._client.create_model_version(name, logged.model_uri, run, model_id=logged.model_id).version)

    def _make(self, name: str) -> None:
        """A registered model of this name, unless there is one."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_registered_model(name)  # first: whoever may add versions may perhaps make no models
            return
        except MlflowException as error:
            if error.error_code not in ABSENT:
                raise
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def find(self, uri: str) -> RegisteredModel:
        """Resolve `models:/NAME@ALIAS` or `models:/NAME/VERSION`, fetching its bundle where it is not on this machine.

        Raises GlintError when there is no such model, version or alias, naming those that there are.
        """
        version = self._named(uri)
        files = model_files(version, self.tracking_uri, None if self._embedded else self._home)
        return RegisteredModel(version.name, str(version.version), files / BUNDLE, *self._active_policy(version))

    def check(self, uri: str) -> None:
        """Raise GlintError as `find` does, fetching nothing."""
        self._named(uri)

    def alias(self, name: str, alias: str) -> str | None:
        """The version that an alias means, None where there is no such alias; GlintError for an unknown model."""
        model = self._model(name)
        found = dict(model.aliases).get(alias)
        return str(found) if found else None

    def promote(self, name: str, version: str, alias: str, record: Mapping[str, Any] | None = None) -> str | None:
        """Point `alias` at a version; returns the version that it pointed at before.

        `record` says how that came about; it becomes the version's tag `glint.promotion.ALIAS`, earlier ones are kept.
        """
        self._version(name, version, None)
        before = self.alias(name, alias)
        if before and before != version:
            # First, so that an interruption loses no way back; going back skips what the alias means already.
            self._remember(name, alias, [*self._earlier(name, alias), before])
        self._set_alias(name, alias, version)
        if record:
            self._record(name, version, f"glint.promotion.{alias}", record)
        return before

    def rollback(self, name: str, alias: str, record: Mapping[str, Any] | None = None) -> tuple[str, str]:
        """Point `alias` at the version that it meant before; returns that one and the one it leaves.

        Each call goes one step further back. `record` becomes the tag `glint.rollback.ALIAS` of the version left.
        Raises GlintError when there is no such alias, or nothing to go back to.
        """
        current = str(self._version(name, None, alias).version)
        earlier = self._earlier(name, alias)
        there = self._versions(name)
        while earlier and (earlier[-1] == current or earlier[-1] not in there):
            earlier.pop()
        if not earlier:
            raise GlintError(
                f"there is nothing to go back to: models:/{name}@{alias} is version {current}, and glint promote has "
                f"set no other before; glint promote {name} --version N --manifest FILE names one"
            )
        target = earlier.pop()
        self._set_alias(name, alias, target)
        self._remember(name, alias, earlier)
        if record:
            self._record(name, current, f"glint.rollback.{alias}", record)
        return target, current

    def _record(self, name: str, version: str, tag: str, record: Mapping[str, Any]) -> None:
        """Set a version's tag. What it was before stays as TAG.1, TAG.2 and so on: an approval is never lost."""
        tags = self._client.get_model_version(name, version).tags
        if tag in tags:
            number = 1 + sum(key.startswith(f"{tag}.") for key in tags)
            self._client.set_model_version_tag(name, version, f"{tag}.{number}", tags[tag])
        self._client.set_model_version_tag(name, version, tag, json.dumps(record))

    def put_policy(self, name: str, version: str, policy: str, record: Mapping[str, Any] | None = None) -> int:
        """Keep a policy (JSON) with a version and make it the active one; returns its number, from 1 on.

        `record`, such as who made it, goes into the version's tag `glint.policy.NUMBER`.
        """
        run = self._version(name, version, None).run_id
        number = max([int(Path(path).stem) for path in self._kept(run, POLICIES)], default=OWN_POLICY) + 1
        self._keep_text(run, f"{POLICIES}/{number}.json", policy)
        self._client.set_model_version_tag(name, version, f"{ACTIVE_POLICY}.{number}", json.dumps(record or {}))
        self.use_policy(name, version, number)
        return number

    def use_policy(self, name: str, version: str, number: int) -> None:
        """Make a policy of a version the active one; GlintError names those that there are."""
        self._check_policy(name, version, number)
        self._client.set_model_version_tag(name, version, ACTIVE_POLICY, str(number))

    def policies(self, name: str, version: str) -> dict[int, dict[str, Any]]:
        """The policies made for a version, by number, with their records."""
        tags = self._version(name, version, None).tags
        named = {key.removeprefix(f"{ACTIVE_POLICY}."): value for key, value in tags.items()}
        return {int(key): json.loads(named[key]) for key in sorted(filter(str.isdecimal, named), key=int)}

    def policy_number(self, name: str, version: str) -> int:
        """Which policy of a version is active; 0 = the bundle's own."""
        return int(self._version(name, version, None).tags.get(ACTIVE_POLICY, OWN_POLICY))

    def policy(self, name: str, version: str, number: int | None = None) -> str | None:
        """A policy of a version (JSON), by default the active one; None where that is the bundle's own."""
        found = self._version(name, version, None)
        if number is None:
            return self._active_policy(found)[1]
        self._check_policy(name, version, number)
        return self._text(found.run_id, f"{POLICIES}/{number}.json") if number else None

    def training_manifest(self, name: str, version: str) -> Path | None:
        """The manifest that a version was trained on, None where its run has kept none."""
        run = self._version(name, version, None).run_id
        kept = self._kept(run, MANIFEST)
        return self._fetched(run, kept[0]) if kept else None

    def manifest_of(self, digest: str) -> Path | None:
        """The manifest with this digest, where any training has kept it."""
        where = f"tags.`glint.manifest` = '{digest}'"
        for run in self._client.search_runs([self._experiment], where):
            if kept := self._kept(run.info.run_id, MANIFEST):
                return self._fetched(run.info.run_id, kept[0])
        return None

    def keep_report(self, name: str, version: str, report: str) -> None:
        """Keep what the gate said (JSON) with the version's run."""
        run = self._version(name, version, None).run_id
        self._keep_text(run, f"{GATE}/{datetime.now(UTC):%Y%m%dT%H%M%S%f}.json", report)

    def models(self) -> list[tuple[str, dict[str, str]]]:
        """Registered models by name, with their aliases and the versions that these mean."""
        found = page = self._client.search_registered_models()
        while page.token:
            page = self._client.search_registered_models(page_token=page.token)
            found = [*found, *page]
        return sorted((model.name, dict(model.aliases)) for model in found)

    def _named(self, uri: str) -> Any:
        if not (parts := _MODEL_URI.fullmatch(uri)):
            raise GlintError(f"--model {uri!r} must be models:/NAME@ALIAS, models:/NAME/VERSION or a bundle directory")
        return self._version(parts["name"], parts["version"], parts["alias"])

    def _version(self, name: str, version: str | None, alias: str | None) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            if alias:
                return self._client.get_model_version_by_alias(name, alias)
            return self._client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code not in ABSENT:
                raise
        raise GlintError(self._absence(name, version, alias))

    def _absence(self, name: str, version: str | None, alias: str | None) -> str:
        models = dict(self.models())
        if name not in models:
            known = ", ".join(sorted(models)) or "none yet; glint train makes one"
            return f"no model {name!r} is registered at {self.shown_uri}; there are: {known}"
        if alias:
            aliases = ", ".join(f"{key} -> {value}" for key, value in sorted(models[name].items())) or "none"
            return (
                f"model {name!r} has no alias {alias!r} (aliases: {aliases}); glint promote {name} --version N sets it"
            )
        return f"model {name!r} has no version {version}; there are: {', '.join(self._versions(name))}"

    def _model(self, name: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code not in ABSENT:
                raise
        raise GlintError(self._absence(name, None, None))

    def _versions(self, name: str) -> list[str]:
        found = self._client.search_model_versions(f"name = '{name}'")
        return sorted((str(one.version) for one in found), key=int)

    def _set_alias(self, name: str, alias: str, version: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.set_registered_model_alias(name, alias, version)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise GlintError(f"--alias {alias!r} cannot be one: {error.message}") from None

    def _earlier(self, name: str, alias: str) -> list[str]:
        """The versions that an alias meant before, the latest last."""
        return list(json.loads(self._model(name).tags.get(f"glint.earlier.{alias}", "[]")))

    def _remember(self, name: str, alias: str, earlier: list[str]) -> None:
        self._client.set_registered_model_tag(name, f"glint.earlier.{alias}", json.dumps(earlier[-MAX_EARLIER:]))

    def _check_policy(self, name: str, version: str, number: int) -> None:
        there = [OWN_POLICY, *self.policies(name, version)]
        if number not in there:
            known = ", ".join(map(str, there))
            raise GlintError(f"--version {number} is no policy of models:/{name}/{version}; there are: {known}")

    def _active_policy(self, version: Any) -> tuple[int, str | None]:
        number = int(version.tags.get(ACTIVE_POLICY, OWN_POLICY))
        return number, self._text(version.run_id, f"{POLICIES}/{number}.json") if number else None
