"""The engines of a new bundle: made, put to the validation images, and decided on. The last step of training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from glint.adapters.images import Images
from glint.core.bootstrap import bootstrap
from glint.core.calibration import rescaled
from glint.core.engine_choice import (
    EngineDecisions,
    EngineTrial,
    changed_bound,
    hopeless_int8,
    judge_bf16,
    judge_int8,
)
from glint.core.engines import EngineName
from glint.core.errors import ImageError
from glint.core.gate import Margins, non_inferiority
from glint.core.manifest import Manifest
from glint.core.policy import Policy, fit_policy
from glint.core.progress import Progress
from glint.pipelines.evaluation import ScoredSplit, compare, scores_of
from glint.pipelines.targets import group_columns, group_values, labelled_table, target_array
from glint.vision.bundle import Bundle, write_documents
from glint.vision.decode import Limits
from glint.vision.engines.conversion import (
    MAX_CALIBRATION_IMAGES,
    STEMS,
    NotConvertedError,
    convert,
    has_nncf,
    quantize,
    save,
)
from glint.vision.engines.openvino_engine import OpenVinoEngine, has_bf16
from glint.vision.predictor import Predictor, model_ref
from glint.vision.selftest import add_to_selftest
from glint.vision.transforms import load_image

if TYPE_CHECKING:  # not before glint.vision.engines, which keeps it from reporting to its maker
    import openvino

Array = np.ndarray[Any, np.dtype[Any]]

MAX_JUDGED = 2000
"""Validation images that the engines are compared on, drawn at random."""
PART = 64
REFERENCE: EngineName = "openvino-fp32"


@dataclass(frozen=True)
class Side:
    """What one engine makes of the validation images, with the policy fitted to it."""

    scored: ScoredSplit
    policy: Policy
    decided: Array


def add_engines(bundle: Bundle, manifest: Manifest, images: Images, limits: Limits, progress: Progress) -> Bundle:
    """The bundle with engine files, the decision among them, and the temperature of the engine that was chosen.

    A network that OpenVINO cannot convert stays with torch, and a line says why.
    """
    multi_label = bundle.info.recipe.task == "multi"
    rows = _drawn(labelled_table(manifest, "val", group_columns(manifest), multi_label), MAX_JUDGED)
    hopeless = hopeless_int8(bootstrap(group_values(rows))[0])
    progress.begin("choosing an engine", None, "")
    try:
        models = _models(bundle)
    except NotConvertedError as error:
        progress.say(f"{bundle.info.backbone} runs on torch: OpenVINO cannot convert it: {error}")
        return _rewritten(bundle, EngineDecisions(chosen="torch", not_converted=str(error)), bundle.policy)
    finally:
        progress.end()
    if not hopeless:
        models |= _quantized(bundle, models[REFERENCE], manifest, images, limits, progress)
    sides = _score(bundle, models, rows, images, limits, progress)
    trials = [*_trials(bundle, sides), *([hopeless] if hopeless else [])]
    accepted = {trial.engine for trial in trials if trial.accepted}
    chosen = next((name for name in ("openvino-int8", "openvino-bf16") if name in accepted), REFERENCE)
    files = {
        name: digest
        for stem in _kept(accepted)
        for name, digest in save(models[stem], bundle.directory, STEMS[stem]).items()
    }
    decided = EngineDecisions(chosen=chosen, trials=tuple(trials), files=files)
    for trial in trials:
        progress.say(f"{trial.engine} {'may serve' if trial.accepted else 'is left out'}: {trial.reason}")
    found = _rewritten(bundle, decided, sides[chosen].policy if chosen in sides else bundle.policy)
    if chosen == "openvino-int8":
        add_to_selftest(Predictor(found, engine=chosen))
    return found


def _kept(accepted: set[EngineName]) -> list[EngineName]:
    """The models to keep; 8 bits only where they may serve."""
    return [REFERENCE, "openvino-int8"] if "openvino-int8" in accepted else [REFERENCE]


def _models(bundle: Bundle) -> dict[EngineName, openvino.Model]:
    """The models by engine, but for 8 bits; raises NotConvertedError when there can be none."""
    model = convert(bundle)
    return {REFERENCE: model} | ({"openvino-bf16": model} if has_bf16() else {})


def _quantized(
    bundle: Bundle, model: openvino.Model, manifest: Manifest, images: Images, limits: Limits, progress: Progress
) -> dict[EngineName, openvino.Model]:
    """The model in 8 bits, calibrated on training images; empty where there can be none, and a line says why."""
    if not has_nncf():
        progress.say("no 8-bit engine: nncf is not installed (pip install 'glint[int8]')")
        return {}
    train = _drawn(manifest.table(["uri", "etag"], split="train", labelled=True), MAX_CALIBRATION_IMAGES)
    parts = _pixels(bundle, train, images, limits)
    samples = [pixels for part in parts for pixels in part if pixels is not None]
    progress.begin("calibrating 8 bits", None, "")
    try:
        return {"openvino-int8": quantize(model, samples)}
    except NotConvertedError as error:
        progress.say(f"no 8-bit engine: nncf cannot quantize {bundle.info.backbone}: {error}")
        return {}
    finally:
        progress.end()


def _drawn(table: pa.Table, most: int) -> pa.Table:
    """At most so many rows at random, the same at each call, in their order."""
    if table.num_rows <= most:
        return table
    return table.take(np.sort(np.random.default_rng(0).choice(table.num_rows, most, replace=False)))


def _pixels(bundle: Bundle, table: pa.Table, images: Images, limits: Limits) -> Iterator[list[torch.Tensor | None]]:
    """The images of a table as the network takes them, PART at a time; None for one that cannot be read."""
    load = partial(load_image, preprocessing=bundle.info.preprocessing, limits=limits)

    def prepare(data: Any) -> torch.Tensor | None:
        try:
            return None if isinstance(data, ImageError) else load(data).pixels
        except ImageError:
            return None

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, table.num_rows, PART):
            part = table.slice(start, PART)
            files = images.read_many(part["uri"].to_pylist(), part["etag"].to_pylist())
            yield list(threads.map(prepare, files))


def _score(
    bundle: Bundle,
    models: dict[EngineName, openvino.Model],
    table: pa.Table,
    images: Images,
    limits: Limits,
    progress: Progress,
) -> dict[EngineName, Side]:
    """Every engine's view of the rows that can be read; empty where none can."""
    engines = {name: OpenVinoEngine(model, name) for name, model in models.items()}
    logits: dict[EngineName, list[Array]] = {name: [] for name in engines}
    good: list[int] = []
    done = 0
    progress.begin("comparing engines", table.num_rows, "images")
    for part in _pixels(bundle, table, images, limits):
        readable = [i for i, pixels in enumerate(part) if pixels is not None]
        good += [done + i for i in readable]
        done += len(part)
        if readable:
            batch = torch.stack([pixels for pixels in part if pixels is not None])
            waiting = {name: engine.submit(batch) for name, engine in engines.items()}
            for name, future in waiting.items():
                logits[name].append(future.result())
        progress.update(done)
    progress.end()
    for engine in engines.values():
        engine.close()
    if not good:
        return {}
    rows = table.take(np.array(good))
    return {name: _side(bundle, rows, np.concatenate(found)) for name, found in logits.items()}


def _side(bundle: Bundle, rows: pa.Table, logits: Array) -> Side:
    classes, multi_label = bundle.info.classes, bundle.info.recipe.task == "multi"
    scaled, targets = torch.from_numpy(logits), target_array(rows)
    raw = (scaled.sigmoid() if multi_label else scaled.softmax(1)).numpy()
    policy = fit_policy(bundle.policy, raw, targets, classes)
    shares = rescaled(raw, policy.temperature, multi_label)
    scored = ScoredSplit(rows["uri"].to_pylist(), targets, shares, raw, group_values(rows))
    return Side(scored, policy, np.array(policy.decisions(shares, classes, multi_label)))


def _trials(bundle: Bundle, sides: dict[EngineName, Side]) -> list[EngineTrial]:
    if not sides:
        return []
    reference, trials = sides[REFERENCE], []
    drawn, resampling = bootstrap(reference.scored.columns)
    support = {
        name: score.support for name, score in scores_of(reference.scored, bundle.info.classes).per_class.items()
    }
    for name, side in sides.items():
        if name == REFERENCE:
            continue
        other_label = side.scored.predicted != reference.scored.predicted
        changed = (side.decided != reference.decided) | (other_label.any(1) if other_label.ndim == 2 else other_label)
        bound = changed_bound(changed, drawn)
        if name == "openvino-bf16":
            trials.append(judge_bf16(changed, bound))
            continue
        found = compare(side.scored, bundle.info.classes, model_ref(bundle, None, None, REFERENCE), reference.scored)
        assert found is not None
        trials.append(judge_int8(changed, bound, non_inferiority(found, resampling, support, Margins())))
    return trials


def _rewritten(bundle: Bundle, engines: EngineDecisions, policy: Policy) -> Bundle:
    write_documents(bundle.directory, bundle.info.model_copy(update={"engines": engines}), policy)
    return Bundle(bundle.directory)
