"""Whether the key of this machine opens an account, and whose that is. Reads only."""

from __future__ import annotations

from launcher.platforms.base import Check, CheckState
from launcher.platforms.deepinfra import preflight
from launcher.platforms.deepinfra.client import SERVICE, DeepInfraClient
from launcher.platforms.deepinfra.credentials import Credentials
from launcher.platforms.http import RequestFailed, RetryPolicy


async def check(credentials: Credentials, limit: float) -> Check:
    """One check of the account, with `limit` seconds for the answer."""
    client = DeepInfraClient(credentials, policy=RetryPolicy(deadline=limit, try_timeout=limit))
    try:
        me = await client.me()
    except RequestFailed as error:
        refused = preflight.refused(error, credentials)
        return Check("deepinfra", refused.state, refused.message.removeprefix(f"{SERVICE}: "))
    finally:
        await client.close()
    return Check("deepinfra", CheckState.OK, f"account {me.owner}, by the key from {credentials.source}")
