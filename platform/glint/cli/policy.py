"""glint policy: how a registered model decides, shown and changed without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glint.cli.options import AsJson


def policy(
    name: Annotated[str, typer.Argument(metavar="NAME[@ALIAS|/VERSION]", help="of the registered model")],
    missed_defect: Annotated[float | None, typer.Option(help="cost of a defective image that is accepted")] = None,
    false_alarm: Annotated[float | None, typer.Option(help="cost of a good image that is rejected")] = None,
    human_look: Annotated[float | None, typer.Option(help="cost of an image that a person looks at")] = None,
    missed: Annotated[
        list[str] | None, typer.Option(metavar="CLASS=COST", help="--missed-defect of one class; may be repeated")
    ] = None,
    accept_class: Annotated[list[str] | None, typer.Option(help="a class that passes; may be repeated")] = None,
    review_below: Annotated[
        float | None, typer.Option(help="confidence under which a person looks, in place of costs")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="calibrate on its images, and count what becomes of them")
    ] = None,
    split: Annotated[str, typer.Option(help="of the manifest: val or test")] = "val",
    version: Annotated[int | None, typer.Option(min=0, help="go back to policy N; 0 is the bundle's own")] = None,
    show: Annotated[bool, typer.Option("--show", help="say what it would be, and change nothing")] = False,
    json: AsJson = False,
) -> None:
    """Show how a model decides between accept, review and reject, or make it decide otherwise from now on.

    A change makes a new version of the policy, which the registry keeps beside the bundle; batch, serve and evaluate
    take the active one when they open the model.

    Examples:

        glint policy boards

        glint policy boards --missed-defect 200 --false-alarm 5 --human-look 1 --accept-class good --missed open=500

        glint policy boards@champion --manifest manifest.parquet --split val

        glint policy boards/3 --version 1
    """
    from glint.cli.console import emit, progress
    from glint.cli.deciding import Changes, decide_anew, drawn, go_back
    from glint.cli.starting import start
    from glint.core.errors import GlintError
    from glint.core.manifest import Manifest
    from glint.settings import Settings
    from glint.wiring import open_images, open_model, open_registry, uncalibrated

    settings = Settings()
    changes = Changes(missed_defect, false_alarm, human_look, missed or (), accept_class, review_below)
    if version is not None and (changes.text or manifest):
        raise GlintError(f"--version {version} takes a policy as it was: change or calibrate it in a call of its own")
    model = open_model(f"models:/{name}" if {"@", "/"} & set(name) else f"models:/{name}@champion", settings)
    registry = open_registry(settings)
    if version is not None:
        shown = go_back(registry, model, version, show)
    else:
        new, change, tried = changes.applied(model.bundle.policy, model.bundle.info.classes), changes.text, None
        if manifest:
            # Here, for it brings Ray along.
            from glint.pipelines.access import check_access
            from glint.pipelines.policy import try_on_split

            labelled, opening, images = Manifest.open(manifest), uncalibrated(model, settings), open_images(settings)
            check_access(labelled, images, split)
            with progress() as told:
                start(settings, told)
                tried = try_on_split(model.bundle, new, opening, labelled, split, images, told)
            change = f"{change} --manifest {manifest} --split {split}".strip()
        shown = decide_anew(registry, model, new, change, tried, show)
    emit(shown, json, *drawn(shown))
