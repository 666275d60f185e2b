"""Who the key belongs to, limits, models, and the bill."""

from __future__ import annotations

import math

from starlette.responses import Response

from launcher.emulators.deepinfra.api.call import Call, Routes, number
from launcher.emulators.deepinfra.deployment import ACTIVE, TASK, Deployment
from launcher.emulators.deepinfra.errors import answer
from launcher.emulators.deepinfra.ledger import HOUR
from launcher.emulators.deepinfra.wire import Json

TOKENS_PER_MINUTE = 1_000_000


def routes() -> Routes:
    """The routes of the account."""
    return [
        ("GET", "/v1/me", me),
        ("GET", "/v1/me/gpu_limit", gpu_limit),
        ("GET", "/v1/me/rate_limit", rate_limit),
        ("GET", "/payment/usage/rent", rent),
        ("GET", "/models/deployment/list", models),
        ("GET", "/models/private/list", models),
    ]


def me(call: Call) -> Response:
    """The account."""
    owner = call.account.config.owner
    nothing = ("first_name", "last_name", "country", "company", "website", "title")
    return answer(
        {
            **dict.fromkeys(nothing, ""),
            "uid": f"github|{owner}",
            "email": f"{owner}@example.com",
            "email_verified": True,
            "account_setup": True,
            "display_name": owner,
            "provider": "github",
            "picture": None,
            "is_admin": False,
            "name": owner,
            "is_business_account": False,
            "is_team_account": False,
            "team_display_name": None,
        }
    )


def gpu_limit(call: Call) -> Response:
    """GPUs that may be used, by type."""
    config = call.account.config
    limits = {gpu.type: config.gpu_limit if gpu.limit is None else gpu.limit for gpu in config.gpus}
    return answer({"limits": limits, "pending_requests": None})


def rate_limit(call: Call) -> Response:
    """Requests in flight and tokens per minute that each model may have."""
    return answer({"rate_limit": call.account.config.rate_limit, "tpm_rate_limit": TOKENS_PER_MINUTE})


def rent(call: Call) -> Response:
    """Seconds of instances in a period, by deployment; also of what is deleted."""
    start, end = number("from", call.needed("from")), number("to", call.query("to", "inf"))
    seconds = call.account.ledger.seconds(start, math.inf if math.isnan(end) else end)
    return answer({"id_to_duration": {id_: round(duration) for id_, duration in seconds.items()}})


def models(call: Call) -> Response:
    """Models of one's own."""
    deployments = call.account.deployments.values()
    return answer([_model(deployment) for deployment in deployments if deployment.status in ACTIVE])


def _model(deployment: Deployment) -> Json:
    pricing = {"type": "uptime", "cents_per_sec": deployment.usd_per_hour * 100 / HOUR}
    return {
        "model_name": deployment.name,
        "type": TASK,
        "reported_type": TASK,
        "description": "",
        "tags": [],
        "pricing": pricing,
        "max_tokens": None,
        "private": 1,
    }
