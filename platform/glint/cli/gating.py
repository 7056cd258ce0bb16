"""The gate before an alias moves: run, recorded in the registry, and shown to a person."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel
from rich.console import RenderableType
from rich.text import Text

from glint.adapters.registry import Registry
from glint.cli.tables import rows
from glint.cli.who import user
from glint.core.errors import GlintError
from glint.core.gate import Gate, GateReport, Margins, Promotion
from glint.core.manifest import Manifest
from glint.core.progress import Progress
from glint.settings import Settings
from glint.wiring import Model, open_images, open_limits, open_model, open_registry, pinned

if TYPE_CHECKING:
    from glint.pipelines.evaluate import Candidate


class Promoted(BaseModel):
    """What `glint promote` answers; `version` is what the alias means now, None where that is nothing."""

    model: str
    alias: str
    version: str | None
    before: str | None
    gate: Gate
    report: GateReport | None


def enter(
    settings: Settings, name: str, version: str, alias: str, manifest: Path, split: str, margins: Margins
) -> Callable[[Progress], GateReport]:
    """Open what the gate needs: the version, what the alias means now, and the data; the rest needs a running Ray."""
    # Here, for without a manifest neither Ray nor torch is needed.
    from glint.pipelines.access import check_access
    from glint.pipelines.gate import Trial, run_gate
    from glint.pipelines.lineage import origins

    opened, registry, images = Manifest.open(manifest), open_registry(settings), open_images(settings)
    check_access(opened, images)
    challenger = open_model(f"models:/{name}/{version}", settings)
    before = registry.alias(name, alias)
    champion = open_model(f"models:/{name}/{before}", settings) if before else None
    trial = Trial(
        manifest=opened,
        split=split,
        images=images,
        limits=open_limits(settings),
        margins=margins,
        origins=origins(name, version, registry),
    )
    sides = _candidate(challenger, settings), _candidate(champion, settings) if champion else None
    return partial(run_gate, *sides, trial)


def _candidate(model: Model, settings: Settings) -> Candidate:
    from glint.pipelines.evaluate import Candidate

    opening = pinned(model, settings)
    return Candidate(model.bundle, model.ref, opening)


def check_first(registry: Registry, name: str, version: str, alias: str) -> None:
    """Raise GlintError where an alias means another version: nothing takes its place unchecked without a reason."""
    before = registry.alias(name, alias)
    if before not in (None, version):
        raise GlintError(
            f"models:/{name}@{alias} is version {before}: for version {version} to take its place, --manifest FILE "
            'asks the gate, or --approve "REASON" goes without'
        )


def left_behind(registry: Registry, promoted: Promoted) -> str | None:
    """What to know of a policy that `glint policy` had set for the version before; None where there is none."""
    if promoted.before in (None, promoted.version) or not registry.policy_number(promoted.model, str(promoted.before)):
        return None
    return (
        f"the policy that was set for version {promoted.before} stays with it; "
        f"glint policy {promoted.model}/{promoted.version} sets one for version {promoted.version}"
    )


def promote(
    registry: Registry, name: str, version: str, alias: str, report: GateReport | None, reason: str | None
) -> Promoted:
    """Move the alias unless the gate refuses and nobody approves; the registry keeps the report, and who did what.

    Raises GlintError where the alias means another version by now than the gate has compared with.
    """
    before = registry.alias(name, alias)
    if report:
        registry.keep_report(name, version, report.model_dump_json(indent=2))
        compared = report.champion.version if report.champion else None
        if before not in (None, compared, version):
            raise GlintError(
                f"models:/{name}@{alias} has become version {before} since the gate compared with "
                f"{f'version {compared}' if compared else 'nothing'}; the same command asks it again"
            )
    elif not reason:
        check_first(registry, name, version, alias)
    refused = tuple(finding.rule for finding in report.refused) if report else ()
    gate: Gate = "unchecked" if report is None else "passed" if not refused else "approved" if reason else "refused"
    if gate != "refused":
        record = Promotion(
            model=name,
            version=version,
            alias=alias,
            before=before,
            gate=gate,
            by=user(),
            reason=reason,
            refused=refused,
            manifest=report.manifest_digest if report else None,
        )
        registry.promote(name, version, alias, record.model_dump(mode="json"))
    means = before if gate == "refused" else version
    return Promoted(model=name, alias=alias, version=means, before=before, gate=gate, report=report)


def drawn(promoted: Promoted) -> list[RenderableType]:
    """For a person: what each rule said, and what the alias means now."""
    shown: list[RenderableType] = []
    if promoted.report:
        colours = {"passed": "green", "refused": "red", "not judged": "yellow", "reported": "cyan"}
        findings = [
            (Text(one.verdict, style=colours[one.verdict]), one.rule, one.measured, one.limit)
            for one in promoted.report.findings
        ]
        shown.append(rows(["", "rule", "measured", "limit"], findings))
    uri = f"models:/{promoted.model}@{promoted.alias}"
    was = f", was {promoted.before}" if promoted.before else ""
    if promoted.gate == "refused":
        return [*shown, f"{uri} stays {promoted.before}" if promoted.before else f"{uri} means nothing yet"]
    how = " although the gate refuses" if promoted.gate == "approved" else ""
    return [*shown, f"{uri} is version {promoted.version}{was}{how}"]
