"""Trials of a tuning as files: a table, a picture, and the best recipe."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from glint.core.errors import GlintError
from glint.core.space import Space
from glint.pipelines.tune import Trial, Tuned

PANEL_INCHES = (3.6, 3.0)
COLUMNS = 3


def write_trials(folder: Path, tuned: Tuned, space: Space) -> None:
    """Write best.yaml, trials.csv and trials.svg; raises GlintError naming --out when that cannot be."""
    scored = [trial for trial in tuned.trials if trial.score is not None]
    files = {
        "best.yaml": _recipe(tuned),
        "trials.csv": _table(tuned),
        "trials.svg": _picture(scored, space),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise GlintError(f"--out {folder} cannot be written to: {error.strerror}") from None


def _recipe(tuned: Tuned) -> str:
    best = tuned.trials[0]
    head = f"# The best of {len(tuned.trials)} trials of {tuned.run}: {tuned.metric} {best.score:.4f}.\n"
    return head + yaml.safe_dump(tuned.best.model_dump(mode="json"), sort_keys=False)


def _table(tuned: Tuned) -> str:
    text = io.StringIO()
    names = list(tuned.trials[0].values)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", tuned.metric, "epochs", "seconds", *names, "error"])
    for trial in tuned.trials:
        values = [trial.values.get(name) for name in names]
        writer.writerow([trial.trial, trial.score, trial.epochs, trial.seconds, *values, trial.error])
    return text.getvalue()


def _picture(trials: list[Trial], space: Space) -> str:
    """The score of each trial by epoch, and its best by each field; a trial that went further is darker."""
    names = list(trials[0].values)
    num_panels = 1 + len(names)
    columns = min(COLUMNS, num_panels)
    rows = -(-num_panels // columns)
    figure = Figure(figsize=(columns * PANEL_INCHES[0], rows * PANEL_INCHES[1]), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    _draw_epochs(panels[0], trials)
    for axes, name in zip(panels[1:], names, strict=False):
        _draw_field(axes, trials, name, logarithmic=space.fields[name].loguniform is not None)
    for axes in panels[num_panels:]:
        axes.set_axis_off()
    file = io.StringIO()
    figure.savefig(file, format="svg")
    return file.getvalue()


def _draw_epochs(axes: Axes, trials: list[Trial]) -> None:
    for rank, trial in enumerate(trials):
        axes.plot(
            [*trial.scores],
            [*trial.scores.values()],
            color="#1f5fa8" if rank == 0 else "#8a8a8a",
            linewidth=2 if rank == 0 else 0.8,
            marker="o" if len(trial.scores) == 1 else None,
            markersize=3,
            zorder=2 if rank == 0 else 1,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="validation macro-F1", title="trials (the best in blue)")


def _draw_field(axes: Axes, trials: list[Trial], name: str, logarithmic: bool) -> None:
    values: list[Any] = [trial.values[name] for trial in trials]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = values if numbers else [str(value) for value in values]
    epochs = [trial.epochs for trial in trials]
    scores = [trial.score or 0.0 for trial in trials]
    axes.scatter(places, scores, c=epochs, cmap="Blues", edgecolors="#444", vmin=0)
    axes.scatter(places[:1], scores[:1], s=120, facecolors="none", edgecolors="#1f5fa8", linewidths=2)
    if logarithmic:
        axes.set_xscale("log")
    axes.tick_params(axis="x", which="both", labelsize=8, rotation=30)
    axes.set(xlabel=name, ylabel="best macro-F1", title="darker: more epochs; ringed: the best")
