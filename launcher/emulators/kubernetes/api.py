"""The API server: who may enter, what is asked, and the answer."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from launcher.emulators.common.faults import Refuse
from launcher.emulators.common.front import METHODS, Disconnect, Front, RequestRecord, bearer
from launcher.emulators.common.logbook import Line
from launcher.emulators.kubernetes import discovery, protobuf
from launcher.emulators.kubernetes.cluster import Cluster
from launcher.emulators.kubernetes.config import User
from launcher.emulators.kubernetes.controllers import name_taking
from launcher.emulators.kubernetes.errors import ApiError, conflict, forbidden, invalid, not_found
from launcher.emulators.kubernetes.faults import Deny
from launcher.emulators.kubernetes.forwarding import forward
from launcher.emulators.kubernetes.kinds import DEPLOYMENTS, NAMESPACES, PODS, SELF_REVIEWS, Kind, find, served
from launcher.emulators.kubernetes.patches import json_patch, leaves, merge, strategic, without
from launcher.emulators.kubernetes.running import RunningPod
from launcher.emulators.kubernetes.selectors import Selector, selector
from launcher.emulators.kubernetes.store import seconds, stamp
from launcher.emulators.kubernetes.tables import table

Json = dict[str, Any]
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get", "HEAD": "get"}
WATCH_TIME = 1800.0
_SCHEMAS = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_POLL = 0.05


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request about objects. `name` and `part` (a subresource) are empty where the path has none."""

    request: Request
    body: bytes
    user: User
    kind: Kind
    namespace: str
    name: str
    part: str

    @property
    def is_watch(self) -> bool:
        """Whether it stays open."""
        return self.query("watch") in ("true", "1")

    @property
    def verb(self) -> str:
        """As roles call it."""
        if self.request.method == "GET" and not self.name:
            return "watch" if self.is_watch else "list"
        if self.request.method == "DELETE" and not self.name:
            return "deletecollection"
        return _VERBS[self.request.method]

    @property
    def resource(self) -> str:
        """As roles call it."""
        return f"{self.kind.plural}/{self.part}" if self.part else self.kind.plural

    def query(self, name: str) -> str:
        """A query parameter."""
        return self.request.query_params.get(name, "")

    def document(self) -> Json:
        """The body. Raises ApiError for one that is no object in JSON or YAML."""
        content = self.request.headers.get("content-type", "application/json")
        if "protobuf" in content or "cbor" in content:
            raise ApiError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {content}")
        try:
            found = yaml.safe_load(self.body) if "yaml" in content else json.loads(self.body or b"{}")
        except (ValueError, yaml.YAMLError) as error:
            raise ApiError(400, "BadRequest", f"the body is not understood: {error}") from None
        if not isinstance(found, dict):
            raise ApiError(400, "BadRequest", "the body is no object")
        return found

    def selector(self) -> Selector:
        """What of a list is asked for."""
        return selector(self.query("labelSelector"), self.query("fieldSelector"))


@dataclass
class ApiServer:
    """Answers requests about one cluster."""

    cluster: Cluster
    disconnect: Disconnect
    down_until: float = 0.0
    """Until then nobody is answered."""
    _applied: dict[str, dict[str, Json]] = field(default_factory=dict)
    """By uid, what each manager has applied."""

    def __post_init__(self) -> None:
        self.front = Front(self.cluster.clock, self.cluster.faults, self.disconnect)
        self._dice = random.Random(self.cluster.config.seed + 1)  # noqa: S311
        self._kinds = served(self.cluster.config.extensions)

    @property
    def requests(self) -> list[RequestRecord]:
        """All requests so far."""
        return self.front.requests

    def application(self) -> Starlette:
        """What to serve."""
        socket = WebSocketRoute("/{rest:path}", self._forward)
        return Starlette(routes=[Route("/{rest:path}", self._respond, methods=METHODS), socket])

    async def _forward(self, socket: WebSocket) -> None:
        """Connections to a port of a pod: `portforward`, as the official client asks for it."""
        parts = [part for part in socket.url.path.split("/") if part]
        user = self._user(socket)
        match parts:
            case ["api", "v1", "namespaces", namespace, "pods", name, "portforward"] if user is not None:
                allowed = all(self.cluster.may(user, v, "", "pods/portforward", namespace) for v in ("get", "create"))
                port = socket.query_params.get("ports", "")
                if allowed and port.isdecimal() and self.cluster.store.find(PODS, namespace, name) is not None:
                    await forward(socket, self.cluster, namespace, name, int(port))
                    return
        await socket.close(1008)

    async def _respond(self, request: Request) -> Response:
        if self.cluster.clock.now() < self.down_until:
            self.disconnect(request)
        body = await request.body()
        parts = [part for part in request.url.path.split("/") if part]
        name = _name_in(parts, body)

        async def answer_or_refuse() -> Response:
            try:
                self._refuse_by_fault(name, f"{request.method} {request.url.path}")
                return await self._answer(request, parts, body)
            except ApiError as error:
                headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
                return _json(error.status(), error.code, headers)

        return await self.front.respond(request, request.url.path, name, answer_or_refuse)

    def _refuse_by_fault(self, name: str, route: str) -> None:
        if (fault := self.cluster.faults.pick(Refuse, name, route)) is not None:
            reason = "TooManyRequests" if fault.status == 429 else "InternalError"
            raise ApiError(fault.status, reason, fault.message, retry_after=fault.retry_after)

    async def _answer(self, request: Request, parts: list[str], body: bytes) -> Response:
        user = self._user(request)
        if user is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        if parts == ["openapi", "v2"]:
            return Response(protobuf.schemas(self._kinds), media_type=_SCHEMAS)
        said = self._about_itself(parts)
        if said is not None:
            return _json(said)
        call = _call(self._kinds, request, parts, body, user)
        if call.kind is SELF_REVIEWS:
            return _json(self._review(call), 201)
        self._check(call)
        return self._do(call)

    def _user(self, request: HTTPConnection) -> User | None:
        """Who asks. kubectl gives no token away over plain HTTP: whoever shows none is the first user."""
        token = bearer(request.headers.get("authorization", ""))
        return self.cluster.config.users[0] if token is None else self.cluster.tokens.get(token)

    def _about_itself(self, parts: list[str]) -> Json | None:
        said: Json | None = None
        kinds = self._kinds
        match parts:
            case ["version"]:
                said = discovery.version_info(self.cluster.config.version)
            case ["api"]:
                said = discovery.versions()
            case ["apis"]:
                said = discovery.groups(kinds)
            case ["apis", name]:
                said = discovery.group(name)
            case ["api", version]:
                said = discovery.resources(kinds, "", version)
            case ["apis", name, version]:
                said = discovery.resources(kinds, name, version)
            case ["openapi", "v3"]:
                said = discovery.openapi_index(kinds)
            case ["openapi", "v3", *rest]:
                said = discovery.openapi(kinds, "/".join(rest))
        return said

    def _check(self, call: Call) -> None:
        if not self.cluster.may(call.user, call.verb, call.kind.group, call.resource, call.namespace, call.name):
            where = f' in the namespace "{call.namespace}"' if call.namespace else " at the cluster scope"
            what = f'cannot {call.verb} resource "{call.resource}" in API group "{call.kind.group}"{where}'
            raise forbidden(call.kind.qualified, call.name, f'User "{call.user.name}" {what}')
        if call.verb not in call.kind.verbs:
            raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _review(self, call: Call) -> Json:
        review = protobuf.review(call.body) if call.body.startswith(protobuf.MARK) else call.document()
        asked = review["spec"].get("resourceAttributes") or {}
        part = asked.get("subresource", "")
        resource = asked.get("resource", "") + (f"/{part}" if part else "")
        allowed = self.cluster.may(
            call.user,
            asked.get("verb", ""),
            asked.get("group", ""),
            resource,
            asked.get("namespace", ""),
            asked.get("name", ""),
        )
        return {**review, "status": {"allowed": allowed}}

    def _do(self, call: Call) -> Response:
        if call.part == "log":
            return self._log(call)
        verbs = {
            "watch": self._watch,
            "list": self._list,
            "create": self._create,
            "deletecollection": self._delete_all,
            "get": self._get,
            "delete": self._delete,
        }
        return verbs.get(call.verb, self._change)(call)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _get(self, call: Call) -> Response:
        thing = self.cluster.store.get(call.kind, call.namespace, call.name)
        return _json(_scale(thing) if call.part == "scale" else self._shown(call, [thing]) or thing)

    def _shown(self, call: Call, things: list[Json]) -> Json | None:
        """A table, if one is asked for."""
        if "as=Table" not in call.request.headers.get("accept", ""):
            return None
        return table(call.kind, things, self.cluster.age, str(self.cluster.store.version))

    def _list(self, call: Call) -> Response:
        selects = call.selector()
        found = [thing for thing in self.cluster.store.all(call.kind, call.namespace) if selects(thing)]
        listed = {
            "kind": f"{call.kind.kind}List",
            "apiVersion": call.kind.api_version,
            "metadata": {"resourceVersion": str(self.cluster.store.version)},
            "items": found,
        }
        return _json(self._shown(call, found) or listed)

    def _watch(self, call: Call) -> Response:
        store, since = self.cluster.store, call.query("resourceVersion")
        began = store.version if since in ("", "0") else int(since)
        store.changes(call.kind, began)  # refuses a version that is too old
        return StreamingResponse(self._events(call, began, first=since in ("", "0")), media_type="application/json")

    async def _events(self, call: Call, since: int, *, first: bool) -> AsyncIterator[bytes]:
        store, selects = self.cluster.store, call.selector()
        loop = asyncio.get_running_loop()
        ends = loop.time() + float(call.query("timeoutSeconds") or WATCH_TIME)
        bookmarks, told = call.query("allowWatchBookmarks") in ("true", "1"), loop.time()
        if first:
            for thing in store.all(call.kind, call.namespace):
                if selects(thing):
                    yield self._event(call, "ADDED", thing)
            if call.query("sendInitialEvents") == "true":
                yield self._bookmark(call, since, {"annotations": {"k8s.io/initial-events-end": "true"}})
        while loop.time() < ends:
            try:
                changes = store.changes(call.kind, since)
            except ApiError as error:
                yield _line({"type": "ERROR", "object": error.status()})
                return
            since = max(since, store.version)
            for change in changes:
                event = change.seen_by(selects, call.namespace)
                if event is not None:
                    yield self._event(call, *event)
            if bookmarks and loop.time() - told > self.cluster.config.timing.bookmark:
                told = loop.time()
                yield self._bookmark(call, since, {})
            await store.wait(min(1.0, max(0.0, ends - loop.time())))

    def _bookmark(self, call: Call, version: int, metadata: Json) -> bytes:
        kind = {"kind": call.kind.kind, "apiVersion": call.kind.api_version}
        metadata = {"resourceVersion": str(version), "creationTimestamp": None, **metadata}
        return _line({"type": "BOOKMARK", "object": {**kind, "metadata": metadata}})

    def _event(self, call: Call, type_: str, thing: Json) -> bytes:
        return _line({"type": type_, "object": self._shown(call, [thing]) or thing})

    def _log(self, call: Call) -> Response:
        pod = self.cluster.store.get(PODS, call.namespace, call.name)
        running = self.cluster.logs_of(pod["metadata"]["uid"])
        if running is None or (not running.started and not running.ends):
            waiting = running.waiting[0] if running is not None else "ContainerCreating"
            name = pod["spec"]["containers"][0]["name"]
            text = f'container "{name}" in pod "{call.name}" is waiting to start: {waiting}'
            raise ApiError(400, "BadRequest", text)
        if call.query("previous") in ("true", "1") and running.previous is None and not running.restarts:
            raise ApiError(400, "BadRequest", f'previous terminated container in pod "{call.name}" not found')
        return StreamingResponse(self._lines(call, running), media_type="text/plain")

    async def _lines(self, call: Call, running: RunningPod) -> AsyncIterator[bytes]:
        is_waiting = not running.is_alive and not running.is_over
        wants_previous = call.query("previous") in ("true", "1") and not is_waiting
        book = running.previous if wants_previous and running.previous is not None else running.book
        now = self.cluster.clock.now()
        book.collect(now)
        start = int((now - float(call.query("sinceSeconds"))) * 1e9) if call.query("sinceSeconds") else 0
        start = int(seconds(call.query("sinceTime")) * 1e9) if call.query("sinceTime") else start
        lines = [*book.window(start, 2**63, now, None, "")]
        tail = call.query("tailLines")
        shown = lines[len(lines) - min(int(tail), len(lines)) :] if tail else lines
        last = lines[-1].time if lines else 0
        for line in shown:
            yield _text(line, call)
        while call.query("follow") in ("true", "1"):
            over = not running.is_alive or running.book is not book
            book.collect(self.cluster.clock.now())
            for line in [*book.window(last + 1, 2**63, now, None, "")]:
                last = line.time
                yield _text(line, call)
            if over:
                return
            await asyncio.sleep(_POLL)

    # --- changing -----------------------------------------------------------------------------------------------------

    def _create(self, call: Call) -> Response:
        thing = call.document()
        metadata = thing.setdefault("metadata", {})
        if "name" not in metadata and metadata.get("generateName"):
            metadata["name"] = name_taking(metadata["generateName"].rstrip("-"), self._dice)
        self._refuse_bad(call, thing)
        thing.pop("status", None)
        return _json(thing if call.query("dryRun") else self.cluster.create(call.kind, thing), 201)

    def _refuse_bad(self, call: Call, thing: Json) -> None:
        """What no API server takes, and what a webhook of this one does not."""
        metadata = thing["metadata"]
        if (thing.get("apiVersion"), thing.get("kind")) not in (
            (call.kind.api_version, call.kind.kind),
            (None, None),
        ):
            raise ApiError(400, "BadRequest", f"the object is no {call.kind.kind} of {call.kind.api_version}")
        if not metadata.get("name"):
            raise invalid(call.kind.kind, "", "metadata.name: Required value: name or generateName is required")
        if metadata.get("resourceVersion"):
            raise ApiError(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        if call.kind.namespaced:
            if metadata.setdefault("namespace", call.namespace) != call.namespace:
                raise ApiError(400, "BadRequest", "the namespace of the object does not match that of the request")
            if self.cluster.store.find(NAMESPACES, "", call.namespace) is None:
                raise not_found("namespaces", call.namespace)
        if call.kind is DEPLOYMENTS:
            _check_selector(thing)
        route = f"{call.request.method} {call.request.url.path}"
        if (fault := self.cluster.faults.pick(Deny, metadata["name"], route)) is not None:
            text = f'admission webhook "{fault.webhook}" denied the request: {fault.message}'
            raise ApiError(403, "Forbidden", text)

    def _change(self, call: Call) -> Response:
        store = self.cluster.store
        content = call.request.headers.get("content-type", "")
        before = store.find(call.kind, call.namespace, call.name)
        if "apply-patch" in content and not call.part:
            return self._apply(call, before)
        if before is None:
            raise not_found(call.kind.qualified, call.name)
        thing = _scale(before) if call.part == "scale" else copy.deepcopy(before)
        after = _patched(call, thing, content)
        if call.part == "scale":
            replicas = after["spec"].get("replicas", 0)
            after = {**before, "spec": {**before["spec"], "replicas": replicas}}
        elif call.part == "status":
            after = {**before, "status": after.get("status", {})}
        elif "status" in before:
            after["status"] = before["status"]
        else:
            after.pop("status", None)
        made = self._replace(call, before, after)
        return _json(_scale(made) if call.part == "scale" else made)

    def _replace(self, call: Call, before: Json, after: Json) -> Json:
        kept = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "name", "namespace")
        metadata = {**after["metadata"], **{key: before["metadata"][key] for key in kept if key in before["metadata"]}}
        after = {**after, "metadata": metadata}
        if call.kind is DEPLOYMENTS and after["spec"]["selector"] != before["spec"]["selector"]:
            raise invalid(call.kind.kind, call.name, "spec.selector: Invalid value: field is immutable")
        changed = after.get("spec") != before.get("spec")
        return self.cluster.store.update(call.kind, after, spec_changed=changed)

    def _apply(self, call: Call, before: Json | None) -> Response:
        """Server-side apply: what this manager does not set any more goes, what another one sets stays."""
        manager, wanted = call.query("fieldManager"), call.document()
        if not manager:
            raise ApiError(400, "BadRequest", "fieldManager is required for apply patch")
        wanted.setdefault("metadata", {})["name"] = call.name
        if before is None:
            self._refuse_bad(call, wanted)
            made = self.cluster.create(call.kind, wanted)
            self._applied[made["metadata"]["uid"]] = {manager: wanted}
            return _json(self._managed(call.kind, made), 201)
        managers = self._applied.setdefault(before["metadata"]["uid"], {})
        given = wanted["metadata"].get("resourceVersion")
        if given and given != before["metadata"]["resourceVersion"]:
            raise conflict(call.kind.qualified, call.name)
        self._check_conflicts(call, manager, managers, wanted)
        after = strategic(copy.deepcopy(before), wanted)
        mine = dict(leaves(wanted))
        for path, _ in leaves(managers.get(manager, {})):
            if path not in mine and not any(path in dict(leaves(o)) for m, o in managers.items() if m != manager):
                without(after, path)
        managers[manager] = wanted
        return _json(self._managed(call.kind, self._replace(call, before, after)))

    def _check_conflicts(self, call: Call, manager: str, managers: Mapping[str, Json], wanted: Json) -> None:
        mine = {path: value for path, value in leaves(wanted) if path[0] not in ("apiVersion", "kind")}
        for other, applied in managers.items():
            differing = [p for p, v in leaves(applied) if other != manager and p in mine and mine[p] != v]
            if differing and call.query("force") not in ("true", "1"):
                text = f'Apply failed with 1 conflict: conflict with "{other}": .{".".join(differing[0])}'
                raise ApiError(409, "Conflict", text)

    def _managed(self, kind: Kind, thing: Json) -> Json:
        now = self.cluster.store.now()
        fields = [
            {"manager": m, "operation": "Apply", "apiVersion": kind.api_version, "time": now, "fieldsType": "FieldsV1"}
            for m in self._applied.get(thing["metadata"]["uid"], {})
        ]
        return {**thing, "metadata": {**thing["metadata"], "managedFields": fields}}

    # --- deleting -----------------------------------------------------------------------------------------------------

    def _delete(self, call: Call) -> Response:
        thing = self.cluster.store.get(call.kind, call.namespace, call.name)
        options = call.document() if call.body else {}
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted and wanted != thing["metadata"]["uid"]:
            raise ApiError(409, "Conflict", f"Precondition failed: UID in precondition: {wanted}")
        self._ask_to_go(call, thing, options)
        left = self.cluster.store.find(call.kind, call.namespace, call.name)
        if left is not None:
            return _json(left)
        details = {
            "name": call.name,
            "group": call.kind.group,
            "kind": call.kind.plural,
            "uid": thing["metadata"]["uid"],
        }
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return _json(status)

    def _delete_all(self, call: Call) -> Response:
        selects, options = call.selector(), call.document() if call.body else {}
        for thing in self.cluster.store.all(call.kind, call.namespace):
            if selects(thing):
                self._ask_to_go(call, thing, options)
        return self._list(call)

    def _ask_to_go(self, call: Call, thing: Json, options: Json) -> None:
        policy = options.get("propagationPolicy") or call.query("propagationPolicy")
        if options.get("orphanDependents") is not None and not policy:
            policy = "Orphan" if options["orphanDependents"] else "Background"
        grace = options.get("gracePeriodSeconds")
        grace = int(call.query("gracePeriodSeconds")) if grace is None and call.query("gracePeriodSeconds") else grace
        self.cluster.begin_deletion(call.kind, thing, policy, grace)


def _call(kinds: Sequence[Kind], request: Request, parts: list[str], body: bytes, user: User) -> Call:
    if parts[:1] == ["api"] and len(parts) >= 3:
        (group, version), rest = ("", parts[1]), parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        (group, version), rest = (parts[1], parts[2]), parts[3:]
    else:
        raise ApiError(404, "NotFound", "the server could not find the requested resource")
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    kind = find(kinds, group, version, rest[0])
    if kind is None or len(rest) > 3:
        raise ApiError(404, "NotFound", "the server could not find the requested resource")
    name, part = (*rest[1:], "", "")[:2]
    if part and part not in kind.subresources:
        raise ApiError(404, "NotFound", "the server could not find the requested resource")
    return Call(request=request, body=body, user=user, kind=kind, namespace=namespace, name=name, part=part)


def _patched(call: Call, thing: Json, content: str) -> Json:
    if call.request.method == "PUT":
        return call.document()
    if "json-patch" in content:
        operations = json.loads(call.body)
        found: Json = json_patch(thing, operations)
        return found
    patch = call.document()
    merged: Json = strategic(thing, patch) if "strategic" in content else merge(thing, patch)
    return merged


def _check_selector(deployment: Json) -> None:
    wanted = deployment["spec"]["selector"].get("matchLabels") or {}
    labels = (deployment["spec"]["template"].get("metadata") or {}).get("labels") or {}
    if not wanted or any(labels.get(name) != value for name, value in wanted.items()):
        why = "spec.template.metadata.labels: Invalid value: `selector` does not match template `labels`"
        raise invalid("Deployment", deployment["metadata"]["name"], why)


def _scale(thing: Json) -> Json:
    wanted = thing["spec"].get("replicas", 1)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": thing["metadata"],
        "spec": {"replicas": wanted},
        "status": {"replicas": (thing.get("status") or {}).get("replicas", 0)},
    }


def _name_in(parts: list[str], body: bytes) -> str:
    """What faults call the resource of a request: its name, that of the body where the path has none."""
    rest = parts[2:] if parts[:1] == ["api"] else parts[3:]
    rest = rest[2:] if rest[:1] == ["namespaces"] and len(rest) > 2 else rest
    if len(rest) > 1:
        return rest[1]
    try:
        return str(json.loads(body)["metadata"]["name"])
    except (ValueError, KeyError, TypeError):
        return ""


def _text(line: Line, call: Call) -> bytes:
    if call.query("timestamps") not in ("true", "1"):
        return f"{line.text}\n".encode()
    whole, fraction = divmod(line.time, 10**9)
    return f"{stamp(whole).removesuffix('Z')}.{fraction:09d}Z {line.text}\n".encode()


def _json(content: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, headers=headers, media_type="application/json")


def _line(content: Json) -> bytes:
    return json.dumps(content).encode() + b"\n"
