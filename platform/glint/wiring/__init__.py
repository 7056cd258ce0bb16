"""Where implementations are chosen: settings in, working parts out. No other module does this."""

from glint.wiring.cluster import check_store, start_ray, takes_haproxy
from glint.wiring.jobs import check_webhooks, driver_environment, open_allowed, open_desk, open_supervisor
from glint.wiring.models import (
    Model,
    Pin,
    open_limits,
    open_model,
    open_pinned,
    open_predictor,
    pinned,
    pinned_preparer,
    uncalibrated,
)
from glint.wiring.online import keys_path, open_serving, serving_sources
from glint.wiring.storage import (
    blob_credentials,
    check_store_answers,
    cosmos_address,
    open_blob_account,
    open_images,
    open_registry,
    open_store,
)

__all__ = [
    "Model",
    "Pin",
    "blob_credentials",
    "check_store",
    "check_store_answers",
    "check_webhooks",
    "cosmos_address",
    "driver_environment",
    "keys_path",
    "open_allowed",
    "open_blob_account",
    "open_desk",
    "open_images",
    "open_limits",
    "open_model",
    "open_pinned",
    "open_predictor",
    "open_registry",
    "open_serving",
    "open_store",
    "open_supervisor",
    "pinned",
    "pinned_preparer",
    "serving_sources",
    "start_ray",
    "takes_haproxy",
    "uncalibrated",
]
