"""/jobs."""

from __future__ import annotations

import math

from starlette.responses import Response

from launcher.emulators.lepton.api import replicas
from launcher.emulators.lepton.api.call import Call, Routes, answer, part
from launcher.emulators.lepton.errors import ApiError, Code
from launcher.emulators.lepton.job import Job
from launcher.emulators.lepton.wire import Json, Metadata, merge, read
from launcher.emulators.lepton.workspace import shows

MODES = ("alive_only", "archive_only", "alive_and_archive")
PAGE_SIZE = 500
"""Without the parameter, and the most."""


def routes() -> Routes:
    """All routes of jobs."""
    return [
        ("GET", "/jobs", list_jobs),
        ("POST", "/jobs", create),
        ("GET", "/jobs/{id}", get),
        ("PATCH", "/jobs/{id}", patch),
        ("DELETE", "/jobs/{id}", delete),
        ("GET", "/jobs/{id}/events", events),
        ("GET", "/jobs/{id}/replicas", list_replicas),
        ("GET", "/jobs/{id}/replicas/{replica}/log", log),
    ]


async def list_jobs(call: Call) -> Response:
    """One page of what the filters leave."""
    for job in call.workspace.jobs.values():
        job.read()
    call.workspace.tick()
    found = [job for job in call.workspace.listed_jobs() if _matches(job, call)]
    size = min(PAGE_SIZE, call.number("page_size", PAGE_SIZE) or PAGE_SIZE)
    first = (max(1, call.number("page", 1)) - 1) * size
    return answer({"jobs": [show(job) for job in found[first : first + size]], "total": len(found)})


async def create(call: Call) -> Response:
    """201 with the id that the server chose."""
    body = call.document()
    return answer(show(call.workspace.create_job(read(part(body, "metadata"), Metadata), part(body, "spec"))), 201)


async def get(call: Call) -> Response:
    """One job."""
    _job(call).read()
    call.workspace.tick()
    return answer(show(_job(call)))


async def patch(call: Call) -> Response:
    """Merge into the spec; `stopped` stops and starts."""
    job = _job(call)
    document = merge(job.document, part(call.document(), "spec"))
    assert isinstance(document, dict)
    if job.is_deleting:
        raise ApiError(409, Code.CONFLICT, f"job {job.id} is being deleted")
    call.workspace.check_job(document)
    job.change(document)
    return answer(show(job))


async def delete(call: Call) -> Response:
    """Begin the deletion; the job is gone later."""
    _job(call).delete()
    return Response()


async def events(call: Call) -> Response:
    """What has happened to it."""
    job = _job(call)
    return answer(job.history.events("LeptonJob", job.id))


async def list_replicas(call: Call) -> Response:
    """Its workers, those of earlier runs included."""
    return answer(replicas.listing(_job(call).replicas))


async def log(call: Call) -> Response:
    """Live output of a worker."""
    return replicas.live_log(_job(call).replicas, call.path("replica"))


def show(job: Job) -> Json:
    """The whole resource."""
    status = {
        "job_name": job.id,
        "state": job.state,
        **job.count(),
        "creation_time": int(job.created),
        "job_history": [
            {
                "job_name": run.name,
                "state": run.state,
                "ready": 0,
                "active": 0,
                "failed": run.failed,
                "succeeded": run.succeeded,
                "creation_time": int(run.created),
                "completion_time": math.ceil(run.completed),
            }
            for run in job.runs
        ],
    }
    if job.completed is not None:
        status["completion_time"] = math.ceil(job.completed)  # clients end the window of its logs here
    return {"metadata": job.metadata, "spec": job.document, "status": status}


def _job(call: Call) -> Job:
    return call.workspace.job(call.path("id"), _mode(call, "alive_and_archive"))


def _mode(call: Call, default: str) -> str:
    mode = call.query("job_query_mode") or default
    if mode not in MODES:
        raise ApiError(400, Code.INVALID, f"job_query_mode must be one of {', '.join(MODES)}")
    return mode


def _matches(job: Job, call: Call) -> bool:
    params = call.request.query_params
    states = [*params.getlist("status"), *params.getlist("status[]")]
    groups = {*params.getlist("node_groups"), *params.getlist("node_groups[]")}
    return (
        shows(_mode(call, "alive_only"), job)
        and call.query("q") in job.id
        and (not states or job.state in states)
        and (not groups or not groups.isdisjoint(job.spec.node_groups))
        and call.query("created_by", job.metadata["created_by"]) == job.metadata["created_by"]
        and _has_labels(job, call.query("query"))
    )


def _has_labels(job: Job, selector: str) -> bool:
    """`a=b,c=d`; a key alone must exist."""
    for term in filter(None, selector.split(",")):
        key, equals, value = term.partition("=")
        found = job.metadata["labels"].get(key.strip())
        if found is None or (equals and found != value.lstrip("=").strip()):
            return False
    return True
