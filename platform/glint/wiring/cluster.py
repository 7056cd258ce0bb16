"""The Ray that everything runs on."""

from __future__ import annotations

from glint.core.errors import GlintError
from glint.settings import Settings, quieten


def start_ray(settings: Settings, with_jobs: bool = False, serve_at: str | None = None) -> None:
    """Join the Ray that `GLINT_RAY_ADDRESS` names, or start one on this machine; nothing to do where one is joined.

    `with_jobs`: one of glint's own takes submissions of jobs too; `serve_at`: it will serve HTTP at that address.
    """
    quieten(settings)
    import ray

    from glint.adapters import ray_start

    if ray.is_initialized():
        return
    if settings.ray_address:
        ray_start.join_ray(settings.ray_address)
        return
    if serve_at and takes_haproxy(settings, serve_at):
        from glint.serving.haproxy import use_haproxy

        use_haproxy(serve_at, settings.serve_body_timeout_s)  # Serve's processes learn it from their Ray's environment
    ray_start.start_ray(settings.num_cpus, with_jobs)


def takes_haproxy(settings: Settings, host: str) -> bool:
    """Whether HAProxy is to stand before replicas at `host`; GlintError where it is asked for and cannot."""
    if settings.serve_ingress == "proxy" or settings.ray_address:
        return False
    from glint.serving.haproxy import why_not

    reason = why_not(host)
    if reason and settings.serve_ingress == "haproxy":
        raise GlintError(f"GLINT_SERVE_INGRESS=haproxy: {reason}; name proxy or auto")
    return not reason


def check_store(settings: Settings) -> None:
    """Raise GlintError when the running Ray has several nodes and the result store is a file of one of them."""
    import ray

    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    if nodes > 1 and settings.store_uri.startswith("sqlite:"):
        raise GlintError(
            f"GLINT_STORE {settings.store_uri} is a file of one machine, and the Ray at GLINT_RAY_ADDRESS has {nodes} "
            "nodes: name a store that all of them reach"
        )
