"""Everything that exists in the emulated cluster, with versions, and who watches it."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from launcher.emulators.common.clock import Clock, iso
from launcher.emulators.kubernetes.errors import ApiError, conflict, expired, not_found
from launcher.emulators.kubernetes.kinds import ALL, Kind
from launcher.emulators.kubernetes.selectors import Json, Selector


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change. `before` is None for what is new, `after` for what is gone."""

    version: int
    kind: Kind
    before: Json | None
    after: Json | None

    def seen_by(self, selects: Selector, namespace: str) -> tuple[str, Json] | None:
        """The event that a watch tells, if it concerns it."""
        thing = self.after or self.before or {}
        if namespace and thing["metadata"].get("namespace") != namespace:
            return None
        was = self.before is not None and selects(self.before)
        now = self.after is not None and selects(self.after)
        if now:
            return ("MODIFIED" if was else "ADDED"), thing
        if not was:
            return None
        gone = copy.deepcopy(self.before or {})
        gone["metadata"]["resourceVersion"] = str(self.version)
        return "DELETED", gone


@dataclass
class Store:
    """The objects. `window`: changes that a watch can go back."""

    clock: Clock
    window: int = 2000
    version: int = 1
    oldest: int = 1
    """Watches from before this are refused."""
    born: dict[str, float] = field(default_factory=dict)
    """By uid, when each object was made. Objects have whole seconds only."""
    over: dict[str, float] = field(default_factory=dict)
    """By uid, when the end of something was asked for, or it ended."""
    _objects: dict[Kind, dict[tuple[str, str], Json]] = field(default_factory=lambda: {kind: {} for kind in ALL})
    _changes: deque[Change] = field(default_factory=deque)
    _waiting: set[asyncio.Event] = field(default_factory=set)

    # --- reading ------------------------------------------------------------------------------------------------------

    def find(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """An object, not to be changed."""
        return self._objects[kind].get((namespace if kind.namespaced else "", name))

    def get(self, kind: Kind, namespace: str, name: str) -> Json:
        """An object, not to be changed. Raises ApiError 404."""
        found = self.find(kind, namespace, name)
        if found is None:
            raise not_found(kind.qualified, name)
        return found

    def all(self, kind: Kind, namespace: str = "") -> list[Json]:
        """The objects of a kind, of one namespace or all."""
        found = self._objects[kind].items()
        return [thing for (space, _), thing in found if not namespace or space == namespace]

    def everything(self) -> Iterator[tuple[Kind, Json]]:
        """All objects."""
        for kind, things in self._objects.items():
            yield from ((kind, thing) for thing in [*things.values()])

    # --- writing ------------------------------------------------------------------------------------------------------

    def create(self, kind: Kind, thing: Json) -> Json:
        """A new object. Raises ApiError 409 where its name is taken."""
        thing = copy.deepcopy(thing)
        metadata = thing["metadata"]
        key = (metadata.get("namespace", "") if kind.namespaced else "", metadata["name"])
        if key in self._objects[kind]:
            raise ApiError(409, "AlreadyExists", f'{kind.qualified} "{key[1]}" already exists')
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = self.now()
        metadata["generation"] = 1
        self.born[metadata["uid"]] = self.clock.now()
        self._keep(kind, key, None, thing)
        return thing

    def update(self, kind: Kind, thing: Json, *, spec_changed: bool = False) -> Json:
        """The next version of an object. One that waited for its last finalizer goes. Raises ApiError 404, 409."""
        metadata = thing["metadata"]
        key = (metadata.get("namespace", "") if kind.namespaced else "", metadata["name"])
        before = self.get(kind, *key)
        given = metadata.get("resourceVersion")
        if given and given != before["metadata"]["resourceVersion"]:
            raise conflict(kind.qualified, key[1])
        thing = copy.deepcopy(thing)
        thing["metadata"]["generation"] = before["metadata"]["generation"] + int(spec_changed)
        thing["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
        if thing == before:
            return before
        is_leaving = bool(thing["metadata"].get("deletionTimestamp"))
        if is_leaving and not thing["metadata"].get("finalizers") and before["metadata"].get("finalizers"):
            self.remove(kind, before)
            return thing
        self._keep(kind, key, before, thing)
        return thing

    def amend(self, kind: Kind, thing: Json, **parts: Json) -> Json:
        """The object with other parts at its top level, whatever its version."""
        found = copy.deepcopy(self.get(kind, thing["metadata"].get("namespace", ""), thing["metadata"]["name"]))
        found.update(copy.deepcopy(parts))
        found["metadata"].pop("resourceVersion", None)
        return self.update(kind, found)

    def mark_leaving(
        self, kind: Kind, thing: Json, *, grace: int | None = None, finalizers: tuple[str, ...] = ()
    ) -> Json:
        """The object as one whose deletion has begun."""
        metadata = copy.deepcopy(thing["metadata"])
        self.note_end(thing)
        metadata.setdefault("deletionTimestamp", self.now())
        if grace is not None:
            metadata["deletionGracePeriodSeconds"] = grace
        metadata["finalizers"] = [*dict.fromkeys([*metadata.get("finalizers", []), *finalizers])]
        if not metadata["finalizers"]:
            del metadata["finalizers"]
        return self.amend(kind, thing, metadata=metadata)

    def remove(self, kind: Kind, thing: Json) -> None:
        """It is gone."""
        key = (thing["metadata"].get("namespace", "") if kind.namespaced else "", thing["metadata"]["name"])
        before = self._objects[kind].pop(key, None)
        if before is not None:
            self.note_end(before)
            self.version += 1
            self._note(Change(version=self.version, kind=kind, before=before, after=None))

    def note_end(self, thing: Json) -> None:
        """Its end is asked for, or has come."""
        self.over.setdefault(thing["metadata"]["uid"], self.clock.now())

    def forget(self) -> None:
        """Forget all changes so far: watches from now on must list again."""
        self._changes.clear()
        self.oldest = self.version

    def now(self) -> str:
        """The time as objects have it."""
        return stamp(self.clock.now())

    def _keep(self, kind: Kind, key: tuple[str, str], before: Json | None, thing: Json) -> None:
        self.version += 1
        thing["apiVersion"], thing["kind"] = kind.api_version, kind.kind
        thing["metadata"]["resourceVersion"] = str(self.version)
        self._objects[kind][key] = thing
        self._note(Change(version=self.version, kind=kind, before=before, after=thing))

    def _note(self, change: Change) -> None:
        self._changes.append(change)
        while len(self._changes) > self.window:
            self.oldest = self._changes.popleft().version
        for event in self._waiting:
            event.set()

    # --- watching -----------------------------------------------------------------------------------------------------

    def changes(self, kind: Kind, since: int) -> list[Change]:
        """Changes of a kind after a version. Raises ApiError 410 for a version that is not kept."""
        if since < self.oldest:
            raise expired(since)
        found = []
        for change in reversed(self._changes):
            if change.version <= since:
                break
            if change.kind is kind:
                found.append(change)
        return found[::-1]

    async def wait(self, seconds: float) -> None:
        """Until something changes, at most so long."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            self._waiting.discard(event)


def stamp(seconds: float) -> str:
    """A time as objects have it, without fractions."""
    return iso(int(seconds))


def seconds(text: str) -> float:
    """Seconds since 1970 of a time as objects have it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def owner(kind: Kind, thing: Json) -> Json:
    """A reference to the controller of something."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": thing["metadata"]["name"],
        "uid": thing["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owned_by(thing: Json, uid: str) -> bool:
    """Whether something has an owner."""
    return any(reference["uid"] == uid for reference in thing["metadata"].get("ownerReferences") or ())
