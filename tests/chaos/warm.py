"""Imported by the process that children are forked from: what each of them would have to import for itself."""

import contextlib
import gc
import importlib

MODULES = (
    "anyio._backends._asyncio",
    "httpcore",
    "launcher.api",
    "launcher.cli.cleanup_command",
    "launcher.cli.gc_command",
    "launcher.cli.leftovers",
    "launcher.cli.live",
    "launcher.cli.resume_command",
    "launcher.cli.run_command",
    "launcher.cli.stop_command",
    "launcher.config.compose",
    "launcher.harnesses.command",
    "launcher.orchestrator.cleanup",
    "launcher.orchestrator.garbage",
    "launcher.platforms.deepinfra.platform",
    "launcher.platforms.lepton.platform",
    "launcher.platforms.local.docker.engine",
    "launcher.platforms.local.platform",
    "launcher.platforms.pair",
    "launcher.platforms.slurm.platform",
    "launcher.results.write",
    "launcher.supervise",
    "pandas",
    "pyarrow.parquet",
    "tests.chaos.child",
)

KUBERNETES = ("kubernetes.client", "kubernetes.config", "launcher.platforms.kubernetes.platform")

for module in MODULES:
    importlib.import_module(module)
with contextlib.suppress(ModuleNotFoundError):
    for module in KUBERNETES:
        importlib.import_module(module)

gc.freeze()  # or the first collection in each child would copy all of this
