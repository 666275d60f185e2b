"""`--cfg` and `--info`: the composed config and where it comes from, as Hydra prints them."""

from __future__ import annotations

import logging

from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from launcher.config import Request
from launcher.config.compose import compose, config_name, hydra_for
from launcher.config.secret_names import is_secret_name


def show(request: Request, *, cfg: str | None, info: str | None, package: str | None, resolve: bool) -> None:
    """Print what was asked for. Mistakes in the config are errors here as in a run."""
    logging.raiseExceptions = False  # Hydra prints by logging: a closed pipe is no error to report
    overrides = list(compose(request).overrides)
    with hydra_for(request) as hydra:
        name = config_name(request.name)
        if info:
            hydra.show_info(info, name, overrides, RunMode.RUN)
        if cfg:
            _hide_secrets()
            try:
                hydra.show_cfg(config_name=name, overrides=overrides, cfg_type=cfg, package=package, resolve=resolve)
            finally:
                OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _hide_secrets() -> None:
    def env(key: str, default: str | None = "???none") -> str | None:
        if is_secret_name(key):
            return "***"
        return oc.env(key) if default == "???none" else oc.env(key, default)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)
