"""An evaluation in brief, for a terminal; the report has the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType

from glint.cli.tables import rows
from glint.core.bootstrap import ScoreIntervals
from glint.core.intervals import Interval
from glint.core.outcome import counted

if TYPE_CHECKING:
    from glint.pipelines.evaluation import Evaluation


def shown(found: Evaluation) -> list[RenderableType]:
    """Classes as a table, then totals, calibration, decisions and comparison, a line each."""
    lines = [_totals(found), _resampled(found), _calibration(found), *_decisions(found), *_comparison(found)]
    if found.left_out:
        lines.append(f"{sum(found.left_out.values())} images left out: {counted(found.left_out)}")
    return [_classes(found), *lines]


def _classes(found: Evaluation) -> RenderableType:
    from glint.pipelines.report.content import class_rows

    classes = class_rows(found, (found.intervals or ScoreIntervals()).per_class)
    return rows(
        ["class", "precision", "", "recall", "", "F1", "", "images"],
        [
            (row.name, row.precision, _span(of.precision), row.recall, _span(of.recall), row.f1, _span(of.f1))
            + (row.support,)
            for row in classes
            for of in [row.intervals]
        ],
    )


def _totals(found: Evaluation) -> str:
    intervals = found.intervals or ScoreIntervals()
    totals = [
        f"{name.replace('_', ' ')} {value:.4f} {_span(getattr(intervals, name, None))}".strip()
        for name, value in found.summary().items()
    ]
    return f"{', '.join(totals)}, {found.num_images:,} images"


def _resampled(found: Evaluation) -> str:
    how = found.resampling
    if how.column is None:
        return f"no intervals: {how.note}"
    over = f"95% intervals over {how.num_groups:,} values of {how.column}"
    return f"{over}, for {how.note}" if how.note else over


def _calibration(found: Evaluation) -> str:
    how = found.calibration
    error = f"expected calibration error {how.ece_after:.4f}"
    if how.temperature == 1:
        return f"{error}; the policy has no temperature fitted"
    told = f"{error}, {how.ece_before:.4f} without the temperature {how.temperature:.3f}"
    return f"{told}, which was fitted on this very split: larger elsewhere" if how.fitted_on == found.split else told


def _decisions(found: Evaluation) -> list[str]:
    rates = found.decisions
    counts = ", ".join(f"{decision} {count:,}" for decision, count in rates.counts.items())
    if rates.accept_classes is None:
        return [f"decisions: {counts}; policy.accept_classes names no class, so nothing can escape"]
    named = [
        ("escape rate", rates.escape_rate, rates.escape_interval),
        ("false-reject rate", rates.false_reject_rate, rates.false_reject_interval),
        ("sent to review", rates.review_share, rates.review_interval),
    ]
    parts = [f"{name} {value:.4f} {_span(found_)}".strip() for name, value, found_ in named if value is not None]
    return [f"decisions: {counts}; {', '.join(parts)}"]


def _comparison(found: Evaluation) -> list[str]:
    compared = found.comparison
    if compared is None:
        return [f"not compared: {found.not_compared}"]
    other = compared.against.version or compared.against.bundle[:12]
    name = f"{compared.against.name} version {other}" if compared.against.name else f"bundle {other}"
    differences = [
        f"{score.replace('_', ' ')} {one.difference:+.4f} {_span(one.interval, '+')}".strip()
        for score, one in compared.scores.items()
    ]
    return [
        f"against {name}: {', '.join(differences)}; both right {compared.both_right:,}, "
        f"only this one {compared.only_model_right:,}, only that one {compared.only_against_right:,}"
    ]


def _span(found: Interval | None, sign: str = "") -> str:
    return f"({found.low:{sign}.3f} to {found.high:{sign}.3f})" if found else ""
