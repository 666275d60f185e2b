"""What deployments have cost: seconds of the service's own meter, times the price of their GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from launcher.platforms.deepinfra.client import DeepInfraClient
from launcher.platforms.deepinfra.types import Deployment, Offer

HOUR = 3600.0
_CONFIGURATION = re.compile(r"(?:(\d+)x)?(.+)")


class Meter:
    """The meter of one account. Prices are asked for once."""

    def __init__(self, client: DeepInfraClient) -> None:
        self._client = client
        self._offers: list[Offer] | None = None

    async def usd(self, deployments: Iterable[Deployment]) -> dict[str, float]:
        """Cost so far, by id, of those whose price and rent are known. Raises RequestFailed."""
        wanted = list(deployments)
        since = min((found.created or 0.0 for found in wanted), default=0.0)
        return await self.usd_of({found.deploy_id: found.gpu_config for found in wanted}, since)

    async def usd_of(self, shapes: Mapping[str, str], since: float = 0.0) -> dict[str, float]:
        """The same from the shapes of instances by id, and a time, in seconds since 1970, before which none existed."""
        if not shapes:
            return {}
        prices = {deploy_id: await self.price(shape) for deploy_id, shape in shapes.items()}
        rents = await self._client.rent(since)  # a meter may forget what is deleted: that is no zero
        return {
            deploy_id: rents[deploy_id] / HOUR * price
            for deploy_id, price in prices.items()
            if price is not None and deploy_id in rents
        }

    async def price(self, gpu_config: str) -> float | None:
        """USD per hour of one instance, such as 2xA100-80GB; None if the service names none. Raises RequestFailed."""
        if self._offers is None:
            self._offers = await self._client.offers()
        return price_of(self._offers, gpu_config)

    async def hourly(self, found: Deployment) -> float | None:
        """USD per hour that a deployment costs now; None if its price is unknown. Raises RequestFailed."""
        if not found.billed_instances:
            return 0.0
        price = await self.price(found.gpu_config)
        return None if price is None else price * found.billed_instances


def price_of(offers: Iterable[Offer], gpu_config: str) -> float | None:
    """USD per hour of one instance; from the price of one GPU where the configuration is not listed as a whole."""
    prices = {offer.gpu_config: offer.usd_per_hour for offer in offers}
    number, gpu = parts(gpu_config)
    return prices.get(gpu_config, _times(number, prices, gpu))


def parts(gpu_config: str) -> tuple[int, str]:
    """Number and type of the GPUs of a configuration."""
    found = _CONFIGURATION.fullmatch(gpu_config)
    return (int(found[1] or 1), found[2]) if found is not None else (1, gpu_config)


def _times(number: int, prices: Mapping[str, float], gpu: str) -> float | None:
    one = prices.get(f"1x{gpu}", prices.get(gpu))
    return None if one is None else number * one
