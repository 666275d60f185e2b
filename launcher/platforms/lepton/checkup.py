"""Whether the credentials of this machine open a workspace, and what state that is in. Reads only."""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime

import msgspec

from launcher.decoding import decode
from launcher.platforms.base import Check, CheckState
from launcher.platforms.http import RequestFailed, RetryPolicy
from launcher.platforms.lepton import preflight
from launcher.platforms.lepton.client import LeptonClient
from launcher.platforms.lepton.credentials import Credentials
from launcher.platforms.lepton.types import Token

SKEW = 60.0
"""Seconds that the two clocks may differ: ages and the ends of tokens are told by them."""


async def check(credentials: Credentials, limit: float) -> list[Check]:
    """All checks of a workspace, with `limit` seconds for each request."""
    client = LeptonClient(credentials, policy=RetryPolicy(deadline=limit, try_timeout=limit))
    try:
        workspace, (tokens, clock), stores = await asyncio.gather(client.workspace(), _tokens(client), client.stores())
        family = await client.family()
    except RequestFailed as error:
        return [_named(preflight.refused(error, credentials))]
    finally:
        await client.close()
    found = preflight.account(preflight.World(workspace=workspace, tokens=tokens), credentials.token)
    problems = [_named(check) for check in found if check.state is CheckState.PROBLEM]
    token = "".join(f", token {check.message}" for check in found if check.name == "token")
    name = credentials.display_name or workspace.workspace_name or credentials.workspace
    storage = "with" if stores else "without"
    summary = f"workspace {name} speaks {family.path}{token}, {storage} file storage routes"
    return [*(problems or [Check("lepton", CheckState.OK, summary)]), *clock]


def _named(found: Check) -> Check:
    return Check("lepton", found.state, found.message)


async def _tokens(client: LeptonClient) -> tuple[list[Token], list[Check]]:
    """The tokens, and what the answer's date says of this machine's clock."""
    before = time.time()
    answer = await client.api.send("GET", "/tokens")
    try:
        tokens = decode(answer.content, list[Token], strict=False)
        said = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
    except (msgspec.DecodeError, ValueError, TypeError):
        return [], []
    skew = (before + time.time()) / 2 - said
    if abs(skew) <= SKEW:
        return tokens, []
    way = "ahead of" if skew > 0 else "behind"
    message = f"this machine's clock is {abs(skew):.0f} s {way} Lepton's; set it: sudo timedatectl set-ntp true"
    return tokens, [Check("clock", CheckState.PROBLEM, message)]
