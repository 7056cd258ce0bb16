"""glint batch endpoint: names that stay while the models behind them change."""

from __future__ import annotations

from typing import Annotated

import typer

from glint.cli.batch_jobs import Options, options_of, where
from glint.cli.options import AsJson
from glint.cli.remote import DEFAULT_URL, Url, connect

app = typer.Typer(help="Batch endpoints of a server and their deployments.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="name of the endpoint")]
DeploymentModel = Annotated[str, typer.Option(help="models:/NAME@ALIAS or models:/NAME/VERSION")]


@app.command()
def create(
    name: Name,
    model: DeploymentModel,
    deployment: Annotated[str, typer.Option(help="name of its first deployment")] = "main",
    option: Options = None,
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """Make an endpoint with one deployment.

    Examples:

        glint batch endpoint create boards --model models:/boards@champion --option top_k=3
    """
    from glint.cli.console import emit, next_step

    with connect(url) as client:
        made = client.batch.create(name, model, deployment, options_of(option))
    emit(made, json, f"endpoint {name} is there", next_step(f"batch submit {name} --input SOURCE{where(url)}"))


@app.command("list")
def list_endpoints(url: Url = DEFAULT_URL, json: AsJson = False) -> None:
    """List the endpoints.

    Examples:

        glint batch endpoint list
    """
    from glint.cli.console import emit
    from glint.cli.tables import rows
    from glint.serving.batch_answers import Endpoints

    with connect(url) as client:
        found = Endpoints(endpoints=tuple(client.batch.endpoints()))
    lines = [[one.name, one.default, ", ".join(sorted(one.deployments))] for one in found.endpoints]
    emit(found, json, rows(("name", "default", "deployments"), lines))


@app.command()
def show(name: Name, url: Url = DEFAULT_URL, json: AsJson = False) -> None:
    """Show an endpoint and its deployments.

    Examples:

        glint batch endpoint show boards
    """
    from glint.cli.console import emit
    from glint.cli.tables import rows

    with connect(url) as client:
        found = client.batch.endpoint(name)
    lines = [
        [key + (" (default)" if key == found.default else ""), one.model, str(one.options or "")]
        for key, one in sorted(found.deployments.items())
    ]
    emit(found, json, rows(("deployment", "model", "options"), lines))


@app.command()
def deploy(
    name: Name,
    deployment: Annotated[str, typer.Argument(help="name of the deployment, which it replaces if it is there")],
    model: DeploymentModel,
    option: Options = None,
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """Add a deployment to an endpoint, or replace one.

    Examples:

        glint batch endpoint deploy boards candidate --model models:/boards/4
    """
    from glint.cli.console import emit

    with connect(url) as client:
        found = client.batch.deploy(name, deployment, model, options_of(option))
    emit(found, json, f"endpoint {name} has the deployments {', '.join(sorted(found.deployments))}")


@app.command("set-default")
def set_default(
    name: Name,
    deployment: Annotated[str, typer.Argument(help="takes the jobs that name none")],
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """Choose the deployment that takes the jobs which name none.

    Examples:

        glint batch endpoint set-default boards candidate
    """
    from glint.cli.console import emit

    with connect(url) as client:
        found = client.batch.set_default(name, deployment)
    emit(found, json, f"jobs of endpoint {name} go to {found.default}")


@app.command()
def delete(
    name: Name,
    deployment: Annotated[str | None, typer.Option(help="only this deployment")] = None,
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """Delete an endpoint, or one of its deployments; jobs stay.

    Examples:

        glint batch endpoint delete boards --deployment candidate
    """
    from pydantic import BaseModel

    from glint.cli.console import emit

    class Deleted(BaseModel):
        endpoint: str
        deployment: str | None

    with connect(url) as client:
        if deployment is None:
            client.batch.delete_endpoint(name)
        else:
            client.batch.withdraw(name, deployment)
    gone = f"deployment {deployment} of endpoint {name}" if deployment else f"endpoint {name}"
    emit(Deleted(endpoint=name, deployment=deployment), json, f"{gone} is gone")
