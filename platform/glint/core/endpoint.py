"""Batch endpoints: a name that stays while the model behind it changes."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

from glint.core.errors import GlintError, MissingError
from glint.core.job_options import GivenOptions


class Deployment(BaseModel):
    """One way in which an endpoint can score: a model and the options of its jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="models:/NAME@ALIAS, pinned to a version when a job begins, or models:/NAME/VERSION")
    options: GivenOptions = Field(default_factory=dict, description="of the jobs; a job may override them")


class Endpoint(BaseModel):
    """Named deployments, one of which takes the jobs that name none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    deployments: dict[str, Deployment] = Field(default_factory=dict)
    default: str | None = Field(default=None, description="the deployment that takes jobs which name none")
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    def deployment(self, name: str | None) -> tuple[str, Deployment]:
        """The deployment of that name, or the default; raises GlintError with the names that there are."""
        wanted = name or self.default
        if wanted is None or wanted not in self.deployments:
            known = ", ".join(sorted(self.deployments)) or "none yet"
            asked = f"deployment {wanted!r}" if wanted else "default deployment"
            raise GlintError(f"endpoint {self.name!r} has no {asked}; its deployments are {known}")
        return wanted, self.deployments[wanted]

    def deploy(self, name: str, deployment: Deployment) -> Endpoint:
        """With that deployment added or replaced; the first one becomes the default."""
        return self.model_copy(
            update={"deployments": {**self.deployments, name: deployment}, "default": self.default or name}
        )

    def withdraw(self, name: str) -> Endpoint:
        """Without that deployment; MissingError where there is none, GlintError for the default one beside others."""
        if name not in self.deployments:
            known = ", ".join(sorted(self.deployments)) or "none yet"
            raise MissingError(f"endpoint {self.name!r} has no deployment {name!r}; its deployments are {known}")
        rest = {key: value for key, value in self.deployments.items() if key != name}
        if name == self.default and rest:
            raise GlintError(
                f"deployment {name!r} is the default of endpoint {self.name!r}; make another one the default first: "
                f"{', '.join(sorted(rest))}"
            )
        return self.model_copy(update={"deployments": rest, "default": self.default if rest else None})

    def with_default(self, name: str) -> Endpoint:
        """With that deployment as the default; raises GlintError where there is none of that name."""
        self.deployment(name)
        return self.model_copy(update={"default": name})
