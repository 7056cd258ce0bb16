"""Transfer: a model filled with the weights of another, by name and shape, and a report on what matched."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import timm.models
from pydantic import BaseModel, ConfigDict
from torch import nn

from glint.core.errors import GlintError
from glint.vision.weights import FOREIGN, State, Weights, listed

MIN_SHARE = 0.9
"""Of the backbone's tensors and of its parameters; weights that fill less are those of another backbone."""
MAX_UNEXPECTED = 0.1
"""Of the weights' tensors below the model's own top-level modules; weights with more are those of a larger backbone."""
FILTER = "checkpoint_filter_fn"
"""timm's name for what makes its own of a backbone's foreign checkpoints, and of those for other image sizes."""


class LoadReport(BaseModel):
    """What of the weights went into a model. Tensors are named as the model has them."""

    model_config = ConfigDict(frozen=True)

    source: str
    backbone: str
    num_matched: int
    """Tensors of the backbone that were filled."""
    num_tensors: int
    matched_share: float
    """Of the backbone's parameters."""
    head: Literal["kept", "partly", "new"]
    new_classes: tuple[str, ...] = ()
    """Where the head was kept partly: the classes whose rows begin at random."""
    left_out: tuple[str, ...] = ()
    """Of another shape than the model's."""
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    def line(self) -> str:
        """All of it in one sentence for a person."""
        matched = f"{self.num_matched} of {self.num_tensors} tensors ({self.matched_share:.1%} of the parameters)"
        if self.num_matched == self.num_tensors:
            matched = f"all {self.num_tensors} tensors"
        head = {"kept": "and the head", "new": "with a new head", "partly": "and the head of the classes it knows"}
        told = [f"weights {self.source}: {matched} of the backbone {self.backbone} {head[self.head]}"]
        lists = {"new": self.new_classes, "of another shape": self.left_out}
        lists |= {"missing": self.missing, "unused": self.unexpected}
        return "; ".join(told + [f"{what}: {listed(names)}" for what, names in lists.items() if names])


def load_weights(
    model: nn.Module, weights: Weights, backbone: str, classes: Sequence[str] | None = None, source: str | None = None
) -> LoadReport:
    """Fill a model with what fits it by name and shape; the rest stays as it is, and the report tells of it.

    A first convolution for another number of channels is adapted, and so are position embeddings for another image
    size. Where the classes of both are known, the head takes over the rows of those that they share. `source` is what
    the weights are called. Raises GlintError for the weights of another backbone, a larger one of its kind included.
    """
    called = source or weights.source
    if weights.backbone not in (None, backbone):
        raise GlintError(
            f"recipe.weights {called!r} do not fit the backbone {backbone}: they are of {weights.backbone}"
        )
    own: State = model.state_dict()
    head = _names_of_head(model, own)
    state = _fit_first_convolution(_as_timm_has_it(weights.state, model, backbone), model)
    rows = _shared(weights.classes, classes)
    if rows is not None:
        _fit_head(state, own, head, rows)
    fits = {name: tensor for name, tensor in state.items() if name in own and tensor.shape == own[name].shape}
    report = _report(called, backbone, own, state, head)
    if min(report.num_matched / max(report.num_tensors, 1), report.matched_share) < MIN_SHARE:
        raise GlintError(_mismatch(report, own, state))
    _refuse_larger(report, own, state)
    model.load_state_dict(fits, strict=False)
    if rows is None or classes is None or report.head == "new":
        return report
    new = tuple(name for row, name in enumerate(classes) if row not in rows)
    return report.model_copy(update={"head": "partly" if new else "kept", "new_classes": new})


def report_all(source: str, backbone: str, model: nn.Module, head: Literal["kept", "new"]) -> LoadReport:
    """The report on weights whose every tensor a model has taken, but perhaps for the head."""
    own: State = model.state_dict()
    return _report(source, backbone, own, own, _names_of_head(model, own)).model_copy(update={"head": head})


def _as_timm_has_it(state: State, model: nn.Module, backbone: str) -> State:
    """The state with timm's names and shapes; as it is where timm's filter makes nothing of it."""
    module = sys.modules[timm.models.model_entrypoint(backbone).__module__]
    convert: Callable[[State, nn.Module], State] | None = getattr(module, FILTER, None)
    if convert:
        with contextlib.suppress(*FOREIGN):
            return dict(convert(dict(state), model))
    return dict(state)


def _fit_first_convolution(state: State, model: nn.Module) -> State:
    """Adapt what the image goes into to the model's number of channels."""
    traits = timm.models.get_model_traits(model)
    names = traits.get("first_conv") or ()
    for name in (names,) if isinstance(names, str) else names:
        weight, wanted = state.get(f"{name}.weight"), model.get_parameter(f"{name}.weight")
        if weight is None or weight.ndim != 4 or weight.shape[1] == wanted.shape[1]:
            continue
        channels = traits["in_chans"] * weight.shape[1] // wanted.shape[1]
        # Where timm knows no way to adapt it, it keeps its shape, and is told as left out.
        with contextlib.suppress(*FOREIGN):
            state[f"{name}.weight"] = timm.models.adapt_input_conv(traits["in_chans"], weight, channels)
    return state


def _names_of_head(model: nn.Module, own: State) -> list[str]:
    """The tensors of what timm calls the classifier, of which some models have two."""
    classifier: Any = model.pretrained_cfg.get("classifier") or ()  # type: ignore[operator, union-attr]
    parts = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return [name for name in own if name.startswith(tuple(f"{part}." for part in parts))]


def _shared(old: Sequence[str] | None, new: Sequence[str] | None) -> dict[int, int] | None:
    """The new head's rows and the old head's for the classes that both have; None where either is unknown."""
    if old is None or new is None:
        return None
    return {row: old.index(name) for row, name in enumerate(new) if name in old}


def _fit_head(state: State, own: State, head: list[str], rows: dict[int, int]) -> None:
    """Make the head's tensors of the model's own with the old rows in them; where none is shared, leave them out."""
    for name in head:
        old = state.pop(name, None)
        if old is not None and rows and old.shape[1:] == own[name].shape[1:]:
            state[name] = own[name].clone()
            state[name][list(rows)] = old[list(rows.values())].to(own[name].dtype)


def _report(source: str, backbone: str, own: State, state: State, head: list[str]) -> LoadReport:
    fits = {name for name, tensor in state.items() if name in own and tensor.shape == own[name].shape}
    body = {name: tensor.numel() for name, tensor in own.items() if tensor.is_floating_point() and name not in head}
    return LoadReport(
        source=source,
        backbone=backbone,
        num_matched=len(body.keys() & fits),
        num_tensors=len(body),
        matched_share=sum(body[name] for name in body.keys() & fits) / max(sum(body.values()), 1),
        head="kept" if head and fits.issuperset(head) else "new",
        left_out=tuple(name for name in own if name in state and name not in fits),
        missing=tuple(name for name in body if name not in state),
        unexpected=tuple(name for name in state if name not in own),
    )


def _refuse_larger(report: LoadReport, own: State, state: State) -> None:
    """A resnet34's weights have all that a resnet18 takes, and more of it; what is unused elsewhere is no such sign."""
    tops = {_top(name) for name in own}
    below = [name for name in state if _top(name) in tops]
    extra = [name for name in report.unexpected if _top(name) in tops]
    if len(extra) <= MAX_UNEXPECTED * len(below):
        return
    raise GlintError(
        f"recipe.weights {report.source!r} do not fit the backbone {report.backbone}: it has no place for {len(extra)} "
        f"of their {len(below)} tensors in {listed(sorted({_top(name) for name in extra}))}, and at most "
        f"{MAX_UNEXPECTED:.0%} may be left over; {listed(extra)}"
    )


def _top(name: str) -> str:
    """The top-level module of a tensor."""
    return name.partition(".")[0]


def _mismatch(report: LoadReport, own: State, state: State) -> str:
    first = [f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}" for name in report.left_out]
    first += [f"{name} is missing" for name in report.missing]
    return (
        f"recipe.weights {report.source!r} do not fit the backbone {report.backbone}: {report.num_matched} of its "
        f"{report.num_tensors} tensors ({report.matched_share:.0%} of its parameters) are there in the same shape, and "
        f"{MIN_SHARE:.0%} are needed; {listed(first)}"
    )
