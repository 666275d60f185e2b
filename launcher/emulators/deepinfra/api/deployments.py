"""Renting models: `/deploy`."""

from __future__ import annotations

from starlette.responses import Response

from launcher.emulators.deepinfra.api.call import Call, Routes
from launcher.emulators.deepinfra.deployment import Deployment, Status
from launcher.emulators.deepinfra.errors import ApiError, Shape, answer, not_found
from launcher.emulators.deepinfra.wire import HfModelIn, LlmIn, UpdateIn


def routes() -> Routes:
    """The routes of deployments; those with fixed words first."""
    return [
        ("POST", "/deploy/llm", create),
        ("POST", "/deploy/hf", create_legacy),
        ("GET", "/deploy/llm/gpu_availability", availability),
        ("GET", "/deploy/llm/suggest_name", suggest_name),
        ("GET", "/deploy/list", list_all),
        ("GET", "/deploy/stats", all_stats),
        ("GET", "/deploy/{deploy_id}", details),
        ("PUT", "/deploy/{deploy_id}", update),
        ("DELETE", "/deploy/{deploy_id}", delete),
        ("POST", "/deploy/{deploy_id}/stop", stop),
        ("POST", "/deploy/{deploy_id}/start", start),
        ("GET", "/deploy/{deploy_id}/stats", stats),
        ("GET", "/deploy/{deploy_id}/stats2", detailed_stats),
    ]


def create(call: Call) -> Response:
    """A dedicated language model."""
    return answer(call.account.create(call.read(LlmIn, Shape.ERROR)).document())


def create_legacy(call: Call) -> Response:
    """A serverless reference."""
    return answer({"deploy_id": call.account.create_legacy(call.read(HfModelIn).model_name)})


def availability(call: Call) -> Response:
    """What can be rented, by size of an instance, with the price of the whole instance."""
    config = call.account.config
    gpus = [
        {
            "gpu_config": f"{count}x{gpu.type}",
            "usd_per_hour": round(count * gpu.usd_per_hour, 6),
            "available": gpu.available,
            "recommended": False,
        }
        for gpu in config.gpus
        for count in config.gpu_counts
    ]
    return answer({"gpus": gpus})


def suggest_name(call: Call) -> Response:
    """A free name."""
    return answer({"model_name": call.account.suggested_name(call.query("model_name"))})


def list_all(call: Call) -> Response:
    """All deployments, or those of some statuses."""
    if "status" not in call.request.query_params:
        return answer(call.account.listed(None))
    wanted = set(call.query("status").split(","))
    unknown = wanted - {status.value for status in Status}
    if unknown:
        raise ApiError(400, f"unknown status {', '.join(sorted(unknown))}")
    return answer(call.account.listed(wanted))


def details(call: Call) -> Response:
    """One deployment."""
    found = call.account.deployment(call.request.path_params["deploy_id"])
    found.read()
    found.step()
    if found.status is Status.DELETED and call.account.config.deleted_details == "404":
        raise not_found(f"deployment {found.id}")
    return answer(found.document())


def update(call: Call) -> Response:
    """Other bounds for the number of instances."""
    deployment = call.deployment
    deployment.rescale(call.read(UpdateIn).settings)
    return _id(deployment)


def delete(call: Call) -> Response:
    """Give it back for good."""
    deployment = call.deployment
    deployment.ask_delete()
    return _id(deployment)


def stop(call: Call) -> Response:
    """Give its instances back."""
    deployment = call.deployment
    deployment.stop()
    return _id(deployment)


def start(call: Call) -> Response:
    """Begin again."""
    deployment = call.deployment
    deployment.start()
    return _id(deployment)


def stats(call: Call) -> Response:
    """What one deployment did and cost in a period."""
    deployment, start_, end = _counted(call), *call.period()
    usd = call.account.ledger.usd(deployment.id, start_, end)
    return answer(deployment.statistics.summary(start_, end, usd))


def detailed_stats(call: Call) -> Response:
    """The same by kind of model."""
    deployment, start_, end = _counted(call), *call.period()
    usd = call.account.ledger.usd(deployment.id, start_, end)
    return answer({"llm": deployment.statistics.details(start_, end, usd), "embeddings": None, "time": None})


def all_stats(call: Call) -> Response:
    """Numbers of requests by model."""
    start_, end = call.period()
    return answer(
        [
            {"model_name": deployment.name, "requests": deployment.statistics.requests(start_, end)}
            for deployment in call.account.deployments.values()
        ]
    )


def _counted(call: Call) -> Deployment:
    """Raises ApiError: 404, 410 once it is deleted."""
    found = call.account.deployment(call.request.path_params["deploy_id"])
    if found.status is Status.DELETED:
        raise ApiError(410, f"deployment {found.id} is deleted")
    return found


def _id(deployment: Deployment) -> Response:
    return answer({"deploy_id": deployment.id})
