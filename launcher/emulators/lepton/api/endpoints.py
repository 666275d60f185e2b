"""Both endpoint families: /deployments and /endpoints."""

from __future__ import annotations

from starlette.responses import Response

from launcher.emulators.common.clock import iso
from launcher.emulators.lepton import families
from launcher.emulators.lepton.api import replicas
from launcher.emulators.lepton.api.call import Call, Routes, answer, part
from launcher.emulators.lepton.endpoint import Endpoint, Phase
from launcher.emulators.lepton.errors import ApiError, Code
from launcher.emulators.lepton.validation import REDACTED, check_labels
from launcher.emulators.lepton.wire import EndpointSpec, Json, Metadata, merge, read

NOTHING_TO_UPDATE = "no valid field to update"


def routes(*, new: bool) -> Routes:
    """The routes of the family that the workspace speaks; a workspace on the new API still lists the old one's."""
    served = _routes("/endpoints" if new else "/deployments", NewFamily() if new else LegacyFamily())
    return [*served, *_refusals()] if new else served


def _routes(base: str, family: LegacyFamily) -> Routes:
    one = f"{base}/{{name}}"
    common: Routes = [
        ("GET", base, family.list),
        ("POST", base, family.create),
        ("GET", one, family.get),
        ("PATCH", one, family.patch),
        ("PUT", f"{one}/restart", family.restart),
        ("DELETE", one, family.delete),
        ("GET", f"{one}/replicas", family.replicas),
        ("GET", f"{one}/replicas/{{replica}}/log", family.log),
        ("GET", f"{one}/events", family.events),
    ]
    return [*common, *family.own_routes(one)]


def _refusals() -> Routes:
    legacy = LegacyFamily()
    return [("GET", "/deployments", legacy.list), ("POST", "/deployments", _refuse), ("GET", "/devpods", _none)]


async def _refuse(_: Call) -> Response:
    raise ApiError(400, Code.INVALID, "this workspace uses the new deployment API: use /endpoints")


async def _none(_: Call) -> Response:
    return answer([])


class LegacyFamily:
    """`/deployments`."""

    async def list(self, call: Call) -> Response:
        """All endpoints."""
        endpoints = list(call.workspace.endpoints.values())
        for endpoint in endpoints:
            endpoint.read()
        call.workspace.tick()
        return answer([self.show(endpoint, call) for endpoint in call.workspace.listed_endpoints()])

    async def create(self, call: Call) -> Response:
        """201 with everything, a token that the server made included."""
        body = call.document()
        spec = self.parse(part(body, "spec"))
        endpoint = call.workspace.create_endpoint(read(self.parse_metadata(part(body, "metadata")), Metadata), spec)
        return answer(self.show(endpoint, call, redact=False), 201)

    async def get(self, call: Call) -> Response:
        """One endpoint."""
        call.workspace.endpoint(call.path("name")).read()
        call.workspace.tick()
        return answer(self.show(call.workspace.endpoint(call.path("name")), call))

    async def patch(self, call: Call) -> Response:
        """Merge; with `dryrun=true` only say what would become of it."""
        endpoint = call.workspace.endpoint(call.path("name"))
        if endpoint.is_deleting:
            raise ApiError(409, Code.CONFLICT, f"deployment {endpoint.name} is being deleted")
        body = call.document()
        document = self.merged(endpoint, part(body, "spec"))
        metadata = _merged_metadata(endpoint, self.parse_metadata(part(body, "metadata")))
        if (document, metadata) == (endpoint.document, endpoint.metadata):
            raise ApiError(400, Code.INVALID, NOTHING_TO_UPDATE)
        spec = call.workspace.check_endpoint(document)
        if call.workspace.config.secure_endpoint_defaults:
            _check_access(spec)
        if call.query("dryrun") == "true":
            return answer(self.show(endpoint, call, document=document))
        metadata["version"] += 1
        endpoint.metadata = metadata
        endpoint.change(document)
        return answer(self.show(endpoint, call))

    async def restart(self, call: Call) -> Response:
        """New processes for all replicas."""
        endpoint = call.workspace.endpoint(call.path("name"))
        endpoint.restart()
        return answer(self.show(endpoint, call))

    async def delete(self, call: Call) -> Response:
        """Begin the deletion; the endpoint is gone later."""
        call.workspace.endpoint(call.path("name")).delete()
        return Response()

    async def replicas(self, call: Call) -> Response:
        """The replicas there are."""
        return answer(replicas.listing(call.workspace.endpoint(call.path("name")).replicas))

    async def log(self, call: Call) -> Response:
        """Live output of a replica."""
        endpoint = call.workspace.endpoint(call.path("name"))
        return replicas.live_log([*endpoint.replicas, *endpoint.leaving], call.path("replica"))

    async def events(self, call: Call) -> Response:
        """What has happened to it."""
        endpoint = call.workspace.endpoint(call.path("name"))
        return answer(endpoint.history.events("Deployment", endpoint.name))

    async def readiness(self, call: Call) -> Response:
        """Why each replica is or is not ready."""
        call.workspace.tick()
        issues = call.workspace.endpoint(call.path("name")).issues()
        return answer(
            {
                id: [
                    {"reason": issue.reason, "message": issue.message, "creationTimestamp": iso(since)}
                    for issue, since in found
                ]
                for id, found in issues.items()
            }
        )

    async def termination(self, call: Call) -> Response:
        """How processes of its replicas ended."""
        call.workspace.tick()
        endpoint = call.workspace.endpoint(call.path("name"))
        return answer(
            {
                id: [
                    {
                        "started_at": int(each.started),
                        "finished_at": int(each.finished),
                        "exit_code": each.exit_code,
                        "reason": "Completed" if each.exit_code == 0 else "Error",
                        "message": each.message,
                    }
                    for each in terminations
                ]
                for id, terminations in endpoint.terminations.items()
            }
        )

    def own_routes(self, one: str) -> Routes:
        """Routes that the other family lacks."""
        return [("GET", f"{one}/readiness", self.readiness), ("GET", f"{one}/termination", self.termination)]

    def parse(self, spec: Json) -> Json:
        """The spec of a request as the emulator keeps it."""
        return spec

    def parse_metadata(self, metadata: Json) -> Json:
        """The metadata of a request as the emulator keeps it."""
        return metadata

    def merged(self, endpoint: Endpoint, patch: Json) -> Json:
        """The spec after a PATCH."""
        merged = merge(endpoint.document, patch)
        assert isinstance(merged, dict)
        return merged

    def show(self, endpoint: Endpoint, call: Call, *, document: Json | None = None, redact: bool = True) -> Json:
        """The whole resource."""
        phase = endpoint.phase
        state = Phase.NOT_READY if phase in (Phase.STOPPING, Phase.STOPPED) else phase
        spec = _redacted(document or endpoint.document, call) if redact else document or endpoint.document
        internal = f"http://{endpoint.name}.{call.workspace.config.workspace}.svc"
        return {
            "metadata": endpoint.metadata,
            "spec": spec,
            "status": {
                "state": state,
                "phase": phase,
                "endpoint": {
                    "internal_endpoint": "" if endpoint.is_deleting else internal,
                    "external_endpoint": external_url(endpoint, call),
                    "custom_external_endpoint": [],
                },
                "autoscaler_status": {"desired_replicas": endpoint.spec.replicas},
                "ready_replicas": len(endpoint.ready),
                "is_system": False,
            },
        }


class NewFamily(LegacyFamily):
    """`/endpoints`."""

    async def history(self, call: Call) -> Response:
        """The states it had."""
        endpoint = call.workspace.endpoint(call.path("name"))
        states = [{"state": families.new_state(state), "time": iso(when)} for when, state in endpoint.history.states]
        return answer(states)

    def own_routes(self, one: str) -> Routes:
        """Routes that the other family lacks."""
        return [("GET", f"{one}/history", self.history)]

    def parse(self, spec: Json) -> Json:
        """The spec of a request as the emulator keeps it."""
        families.check_scaling(spec)
        return families.to_legacy(spec)

    def parse_metadata(self, metadata: Json) -> Json:
        """The metadata of a request as the emulator keeps it."""
        return families.legacy_metadata(metadata)

    def merged(self, endpoint: Endpoint, patch: Json) -> Json:
        """The spec after a PATCH; `components` is an array and so is replaced whole."""
        merged = merge(families.to_new(endpoint.document), patch)
        assert isinstance(merged, dict)
        families.check_scaling(merged)
        legacy = families.to_legacy(merged)
        return endpoint.document if families.to_new(legacy) == families.to_new(endpoint.document) else legacy

    def show(self, endpoint: Endpoint, call: Call, *, document: Json | None = None, redact: bool = True) -> Json:
        """The whole resource."""
        spec = _redacted(document or endpoint.document, call) if redact else document or endpoint.document
        metadata = families.new_metadata(endpoint.metadata)
        if endpoint.is_deleting:
            metadata["deleted_at"] = int(call.workspace.clock.now() * 1000)
        return {
            "metadata": metadata,
            "spec": families.to_new(spec),
            "status": {
                "state": families.new_state(endpoint.phase),
                "external_url": external_url(endpoint, call),
                "ready_replicas": len(endpoint.ready),
                "auto_scaler_status": {"desired_replicas": endpoint.spec.replicas},
            },
        }


def external_url(endpoint: Endpoint, call: Call) -> str:
    """Where the data plane serves it."""
    return "" if endpoint.is_deleting else f"{call.data_plane}/{call.workspace.config.workspace}-{endpoint.name}"


def _merged_metadata(endpoint: Endpoint, patch: Json) -> Json:
    """Only labels and visibility can be changed."""
    changes = {key: patch[key] for key in ("labels", "visibility") if patch.get(key) is not None}
    check_labels(changes.get("labels"))
    merged = merge(endpoint.metadata, changes)
    assert isinstance(merged, dict)
    return merged


def _redacted(document: Json, call: Call) -> Json:
    if not call.workspace.config.secure_endpoint_defaults or not document.get("api_tokens"):
        return document
    tokens = [{"value": REDACTED} if "value" in token else token for token in document["api_tokens"]]
    return {**document, "api_tokens": tokens}


def _check_access(spec: EndpointSpec) -> None:
    if not spec.api_tokens and not spec.allow_unauthenticated_access:
        raise ApiError(400, Code.VALIDATION, "clearing api_tokens requires allow_unauthenticated_access=true")
