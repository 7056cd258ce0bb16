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
    if serve_at and settings.serve_ingress != "proxy":  # Serve's processes learn it from the environment of their Ray
        from glint.serving.haproxy import use_haproxy, why_not

        reason = why_not(serve_at)
        if reason and settings.serve_ingress == "haproxy":
            raise GlintError(f"GLINT_SERVE_INGRESS=haproxy: {reason}; name proxy or auto")
        if not reason:
            use_haproxy(serve_at, settings.serve_body_timeout_s)
    ray_start.start_ray(settings.num_cpus, with_jobs)


def check_store(settings: Settings) -> None:
    """Raise GlintError when the running Ray has several nodes and the result store is a file of one of them."""
    import ray

    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    if nodes > 1 and settings.store_uri.startswith("sqlite:"):
        raise GlintError(
            f"GLINT_STORE {settings.store_uri} is a file of one machine, and the Ray at GLINT_RAY_ADDRESS has {nodes} "
            "nodes: name a store that all of them reach"
        )
