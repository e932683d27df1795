"""`autovision capture`: what is kept of the requests that a deployment answers, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli.deployment import DeploymentName
from autovision.cli.options import Json, Store
from autovision.cli.output import answering, facts, library
from autovision.cli.policies import changed

if TYPE_CHECKING:
    from autovision.records.deployments import CapturePolicy
    from autovision.store.retention import Forgotten

app = typer.Typer(no_args_is_help=True, help="What is kept of the requests that are answered, and how long.")


@app.command()
def policy(
    deployment: DeploymentName,
    share: Annotated[
        float | None,
        typer.Option("--share", metavar="P", min=0, max=1, help="Of the requests that are kept, at random."),
    ] = None,
    pixels: Annotated[
        bool | None,
        typer.Option("--pixels/--no-pixels", help="Keep their images, too; or embeddings and answers alone."),
    ] = None,
    keep_days: Annotated[
        str | None,
        typer.Option("--keep-days", metavar="DAYS", help="How long a request is kept; none: for good."),
    ] = None,
    keep_requests: Annotated[
        str | None,
        typer.Option("--keep-requests", metavar="N", help="How many are kept, the latest; none: all."),
    ] = None,
    keep_image_days: Annotated[
        str | None,
        typer.Option(
            "--keep-image-days",
            metavar="DAYS",
            help="How long a request's image is kept; none: as long as the request.",
        ),
    ] = None,
    keep_image_gb: Annotated[
        str | None,
        typer.Option("--keep-image-gb", metavar="GB", help="How much of images is kept; none: all."),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Set what is kept from now on, and how long; what is not given stays. Without options: show it.

    Servers follow within a second. Without images drift is watched as before, and nothing can be learnt from labels.
    `autovision controller run` deletes what is no longer kept, every ten minutes; `capture forget` tells, or does it
    now. Labelled requests stay, and so do the images of data sets.
    """
    given = {
        "share": share,
        "pixels": pixels,
        "keep_days": keep_days,
        "keep_requests": keep_requests,
        "keep_image_days": keep_image_days,
        "keep_image_gb": keep_image_gb,
    }
    with answering(as_json) as out:
        av = library(store)
        found = av.deployment(deployment).capture_policy
        wanted = changed(found, given)
        if wanted != found:
            found = av.set_capture_policy(deployment, wanted).capture_policy
        out.answer(found, facts(_policy(found)))


@app.command()
def forget(
    deployment: DeploymentName,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete it; without this it is only told.")
    ] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Tell what the capture policy no longer keeps, or delete it now."""
    from dataclasses import asdict

    with answering(as_json) as out:
        av = library(store)
        found = av.forget(deployment, delete=delete)
        out.answer(
            {"deployment": deployment, "deleted": delete, **asdict(found)}, facts(_forgotten(found, delete))
        )
        if found.any and not delete:
            out.note("nothing was deleted; --delete does it, and so does `autovision controller run`")


# ---------------------------------------------------------------------------------------------- helpers


def _policy(policy: CapturePolicy) -> dict[str, Any]:
    requests = _limits((policy.keep_days, "days"), (policy.keep_requests, "requests"))
    images = _limits((policy.keep_image_days, "days"), (policy.keep_image_gb, "GB"))
    return {
        "share": f"{policy.share:.0%} of the requests",
        "images": policy.pixels,
        "requests are kept": requests or "for good",
        "images are kept": images or "as long as their requests",
    }


def _limits(*limits: tuple[float | None, str]) -> str:
    return ", ".join(f"{most:g} {unit} at most" for most, unit in limits if most is not None)


def _forgotten(found: Forgotten, deleted: bool) -> dict[str, Any]:
    limits = found.cutoffs
    return {
        "deleted" if deleted else "would be deleted": str(found),
        "requests until (UTC)": limits.requests or "the policy keeps all",
        "images until (UTC)": limits.images or "the policy keeps all",
        "labelled, stay": f"{found.labelled:,} requests, {found.labelled_images:,} images"
        if found.labelled or found.labelled_images
        else None,
        "cannot be read, stay": "\n".join(f"{each.key}: {each.message}" for each in found.problems),
    }
