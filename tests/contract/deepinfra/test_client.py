"""What the launcher's own client sends to DeepInfra, and what it hears, fits the OpenAPI document."""

from __future__ import annotations

import httpx
import pytest

from launcher.emulators.deepinfra import Config, DeepInfraEmulator
from launcher.platforms.deepinfra.client import DeepInfraClient
from launcher.platforms.deepinfra.credentials import Credentials
from launcher.platforms.deepinfra.logs import LogWindow
from launcher.platforms.deepinfra.types import Status
from tests.contract.deepinfra.plane import QUICK, wanted
from tests.contract.deepinfra.validation import Contract, Validated

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def drive(client: DeepInfraClient) -> None:
    """Everything that the client can ask."""
    assert (await client.me()).owner == "nv-eval-tester"
    assert (await client.gpu_limits())["H100-80GB"] == 4
    assert await client.offers() and await client.offers("acme/base")
    made = await client.create(wanted(settings={"min_instances": 1, "max_instances": 1}, extra_args=["--seed", "1"]))
    assert [one.deploy_id for one in await client.deployments()] == [made.deploy_id]
    assert len(await client.everything()) == 2
    await client.deployments(Status.RUNNING, Status.DELETED)
    await client.scale(made.deploy_id, least=2, most=2)
    await client.stop(made.deploy_id)
    await client.start(made.deploy_id)
    await client.log(made.deploy_id, LogWindow.since(0.0))
    await client.pod_logs(made.deploy_id, LogWindow.since(0.0), "pod")
    assert await client.token_counts(made.deploy_id, 0.0) is not None
    assert await client.counts(made.deploy_id, 0.0) is not None
    await client.rent(0.0)
    assert await client.delete(made.deploy_id)
    assert await client.deployment(made.deploy_id) is None
    assert not await client.delete(made.deploy_id)


async def test_every_request_of_the_client_and_every_answer_fits() -> None:
    contract = Contract()
    with DeepInfraEmulator(Config(timing=QUICK)) as emulator:
        access = Credentials(key=emulator.key, source="DEEPINFRA_API_KEY", url=emulator.url)
        client = DeepInfraClient(access, transport=Validated(contract, httpx.AsyncHTTPTransport()))
        try:
            await drive(client)
        finally:
            await client.close()

    assert contract.violations == []
    assert len(contract.seen) > 15
