"""`nv-eval login`: check credentials of a platform and keep them where its own tools keep theirs."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.platforms.lepton.client import LeptonClient
    from launcher.platforms.lepton.credentials import Credentials

_EPILOG = """\
The credential string is in the dashboard under Settings, Tokens. Without -c it is asked for, or read from standard
input, so that it does not show in the process list:
  nv-eval login lepton < credential.txt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("platform", choices=("lepton",), help="platform to log in to")
    parser.add_argument("-c", "--credentials", metavar="WORKSPACE:TOKEN", help="the dashboard's credential string")
    parser.add_argument("-u", "--workspace-url", metavar="URL", help="base URL of the workspace's API")
    parser.add_argument("--workspace-origin-url", metavar="URL", help="value of the origin header")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from launcher.errors import ConfigError
    from launcher.platforms.lepton import credentials as files

    workspace, token = files.split(args.credentials if args.credentials is not None else _ask())
    if not workspace or not token:
        raise ConfigError(
            "nv-eval login lepton: expected WORKSPACE:TOKEN; the dashboard shows it under Settings, Tokens"
        )
    given = files.find({}, workspace=workspace, token=token, url=args.workspace_url, origin=args.workspace_origin_url)
    checked = asyncio.run(_check(given))
    path = files.save(checked)
    sys.stdout.write(f"Logged in to {checked.display_name or workspace}; kept in {path}\n")
    return 0


def _ask() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("WORKSPACE:TOKEN: ").strip()
    return sys.stdin.readline().strip()


async def _check(given: Credentials) -> Credentials:
    """The credentials with what the workspace says of them. Raises PreflightError if it does not let us in."""
    from dataclasses import replace

    from launcher.errors import PreflightError
    from launcher.platforms.http import RequestFailed
    from launcher.platforms.lepton.client import LeptonClient
    from launcher.platforms.lepton.preflight import refused

    client = LeptonClient(given)
    try:
        workspace = await client.workspace()
        name, expires = await _details(client, given.token)
    except RequestFailed as error:
        raise PreflightError(refused(error, given).message) from None
    finally:
        await client.close()
    return replace(given, display_name=name or workspace.workspace_name, expires_at=expires)


async def _details(client: LeptonClient, token: str) -> tuple[str | None, float | None]:
    """The workspace's name for people and the end of the token, where the workspace tells them."""
    from launcher.platforms.http import RequestFailed

    try:
        name = (await client.description()).display_name
        own = next((entry for entry in await client.tokens() if entry.is_of(token)), None)
    except RequestFailed:
        return None, None  # logging in does not depend on it
    return name, own.expires_at / 1000 if own is not None and own.expires_at else None
