"""The little of protocol buffers that kubectl insists on."""

from __future__ import annotations

import pytest

from launcher.emulators.kubernetes import protobuf
from launcher.emulators.kubernetes.errors import ApiError
from launcher.emulators.kubernetes.kinds import ALL


@pytest.mark.parametrize("body", [protobuf.MARK, protobuf.MARK + b"\x12", protobuf.MARK + b"\x0d\0\0\0\0"])
def test_what_is_no_review_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError, match="the body is no SelfSubjectAccessReview") as refused:
        protobuf.review(body)

    assert refused.value.code == 400


def test_a_review_is_read() -> None:
    attributes = protobuf._text(1, "default") + protobuf._text(2, "get") + protobuf._text(5, "pods")
    attributes += protobuf._text(6, "log") + protobuf._message(7, b"")
    spec = protobuf._message(2, protobuf._message(1, attributes))
    body = protobuf.MARK + protobuf._message(2, b"\x08\x96\x01" + spec)

    asked = protobuf.review(body)["spec"]["resourceAttributes"]

    assert asked == {"namespace": "default", "verb": "get", "resource": "pods", "subresource": "log", "name": ""}


def test_every_kind_is_in_the_schemas() -> None:
    content = protobuf.schemas(ALL)

    assert all(f"io.k8s.{kind.kind}".encode() in content for kind in ALL)
