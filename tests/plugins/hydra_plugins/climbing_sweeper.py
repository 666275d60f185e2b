"""A sweeper as Hydra's plugins are: a small search that keeps near the best value so far, with a seed of its own.

Hydra executes it before it is in sys.modules, so that its dataclass cannot do with annotations that are texts.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

TOLD: list[tuple[str, Any]] = []
"""What sweepers of this process were told: each point with its value, or the error of a failed one."""


@dataclass
class ClimbingConf:
    _target_: str = "hydra_plugins.climbing_sweeper.ClimbingSweeper"
    n_trials: int = 6
    n_jobs: int = 2
    seed: int | None = None
    direction: Any = "maximize"
    asks_at_last: str = ""
    """One point more, whatever it is."""
    breaks: bool = False
    tolerates_failures: bool = True


ConfigStore.instance().store(group="hydra/sweeper", name="climbing", node=ClimbingConf, provider="climbing")


class ClimbingSweeper(Sweeper):
    def __init__(self, **settings: Any) -> None:
        self.settings = ClimbingConf(**settings)
        self.launched = 0
        self.best: tuple[float, dict[str, str]] | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        parsed = OverridesParser.create().parse_overrides(arguments)
        space = {one.get_key_element(): list(one.sweep_string_iterator()) for one in parsed}
        chance = random.Random(self.settings.seed)
        left = self.settings.n_trials
        while left > 0:
            size = min(left, self.settings.n_jobs)
            left -= size
            self.try_all([self.next_point(space, chance) for _ in range(size)])
        if self.settings.breaks:
            raise ValueError("the search went wrong\nwith details")
        if self.settings.asks_at_last:
            self.try_all([dict([self.settings.asks_at_last.split("=")])])
        Path(self.config.hydra.sweep.dir, "climbing.json").write_text(json.dumps(self.best))

    def next_point(self, space: dict[str, list[str]], chance: random.Random) -> dict[str, str]:
        """One at random, or beside the best: so each point depends on what earlier ones gave."""
        if self.best is None or chance.random() < 0.3:
            return {name: chance.choice(values) for name, values in space.items()}
        return {
            name: values[min(max(values.index(self.best[1][name]) + chance.choice([-1, 1]), 0), len(values) - 1)]
            for name, values in space.items()
        }

    def try_all(self, points: list[dict[str, str]]) -> None:
        batch = [[f"{name}={value}" for name, value in point.items()] for point in points]
        self.validate_batch_is_legal(batch)
        returns = self.launcher.launch(batch, initial_job_idx=self.launched)
        self.launched += len(returns)
        for point, texts, one in zip(points, batch, returns, strict=True):
            try:
                value = one.return_value
            except Exception as error:
                TOLD.append((" ".join(texts), error))
                if not self.settings.tolerates_failures:
                    raise
            else:
                TOLD.append((" ".join(texts), value))
                first = value[0] if isinstance(value, list) else value
                if self.best is None or first > self.best[0]:
                    self.best = (first, point)
