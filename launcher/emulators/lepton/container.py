"""Containers without containers: what a spec asks for, as a command of this machine.

No image is pulled and nothing is isolated. Three things of a spec mean something only inside a container and are
translated:

- **Mounts.** Each volume is a folder below the emulator's root (`volumes/...`). In the command and in the values of
  envs, every mount path that stands for itself or begins a path is replaced by the folder it names on the volume, also
  inside `/bin/bash -c` strings. Text that hides paths (base64, archives) is not looked into.
- **The port.** A free port is reserved. In the command and in envs, the container port is replaced by it where it is
  recognisable as a port: after `--port`, `--http-port=`, `-p`, `port:` and the like, after a host and a colon, in a
  variable whose name contains PORT. If it is nowhere recognisable, the number is replaced wherever it stands alone in
  the command; if it does not, and the image's entry in the table does not use `{port}`, the process is expected on the
  container port itself.
- **The image.** A table of the config (`Image`) says what goes before the command or in its place.

The process sees the variables of `Config.inherit`, HOME and TMPDIR of its own, LEPTON_*, and its envs. Nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from launcher.emulators.lepton.config import Config, Image
from launcher.emulators.lepton.wire import Container, EnvVar, Mount


class CannotStart(Exception):
    """The container can never start as it is specified: a ConfigError of its replica."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a spec asks for, endpoint or job, and the LEPTON_* variables of this replica."""

    container: Container
    envs: Sequence[EnvVar]
    mounts: Sequence[Mount]
    pull_secrets: Sequence[str]
    predefined: Mapping[str, str]

    @property
    def port(self) -> int | None:
        """The first port of the container."""
        return self.container.ports[0].container_port if self.container.ports else None


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to execute. `port` is where it listens."""

    argv: tuple[str, ...]
    env: dict[str, str]
    port: int | None


class Translator:
    """Turns what specs ask for into commands. `secrets` and `pull_secrets` are those of the workspace, live."""

    def __init__(
        self, config: Config, root: Path, secrets: Mapping[str, str], pull_secrets: Mapping[str, object]
    ) -> None:
        self._config = config
        self._root = root
        self._secrets = secrets
        self._pull_secrets = pull_secrets

    def command(self, asked: Asked, home: Path, free_port: int | None) -> Command:
        """The command. Makes the folders of its mounts. Raises CannotStart."""
        self._check_pull_secrets(asked.pull_secrets)
        image = self._config.image(asked.container.image or "")
        folders = self._folders(asked.mounts)
        env = {name: with_folders(value, folders) for name, value in self._values(asked).items()}
        argv = tuple(with_folders(word, folders) for word in asked.container.command or ())
        argv, env, port = listen(argv, env, asked.port, free_port, image)
        if not argv:
            raise CannotStart(f"image {asked.container.image}: no command, and the image table has none for it")
        for name, value in image.env.items():
            env.setdefault(name, _fill(value, port).replace("{home}", str(home)))
        return Command(argv=argv, env={**self._base(home, image), **env}, port=port)

    def simulated(self, asked: Asked, home: Path) -> Command:
        """The same for a container that is only simulated: everything as the spec has it. Raises CannotStart."""
        self._check_pull_secrets(asked.pull_secrets)
        env = {**self._base(home, Image()), **self._values(asked)}
        return Command(argv=tuple(asked.container.command or ()), env=env, port=None)

    def volume(self, source: str) -> Path:
        """The folder of a volume, by the `from` of a mount."""
        return self._root / "volumes" / source.replace(":", "_").replace("/", "_")

    def _values(self, asked: Asked) -> dict[str, str]:
        values = dict(asked.predefined)
        for env in asked.envs:
            if env.secret is None:
                values[env.name] = env.value or ""
            elif env.secret in self._secrets:
                values[env.name] = self._secrets[env.secret]
            else:
                raise CannotStart(f"secret {env.secret} not found (env {env.name})")
        return values

    def _check_pull_secrets(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._pull_secrets:
                raise CannotStart(f"image pull secret {name} not found")

    def _folders(self, mounts: Sequence[Mount]) -> dict[str, Path]:
        folders = {}
        for mount in mounts:
            inside = PurePosixPath("/", mount.path or "/").relative_to("/")
            folder = self.volume(mount.source or "node-local") / inside
            folder.mkdir(parents=True, exist_ok=True)
            folders[mount.mount_path.rstrip("/")] = folder
        return folders

    def _base(self, home: Path, image: Image) -> dict[str, str]:
        env = {name: os.environ[name] for name in self._config.inherit if name in os.environ}
        env["PATH"] = os.pathsep.join([*image.path, env.get("PATH", os.defpath)])
        return {**env, "HOME": str(home), "TMPDIR": str(home)}


def with_folders(text: str, folders: Mapping[str, Path]) -> str:
    """The text with mount paths replaced by folders; `/results2` and `/my/results` are not `/results`."""
    if not folders:
        return text
    longest_first = sorted(folders, key=len, reverse=True)
    paths = re.compile(rf"(?<![\w./-])({'|'.join(map(re.escape, longest_first))})(?![\w.-])")
    return paths.sub(lambda match: str(folders[match[1]]), text)


def listen(
    argv: tuple[str, ...], env: dict[str, str], asked: int | None, free: int | None, image: Image
) -> tuple[tuple[str, ...], dict[str, str], int | None]:
    """Command, variables and port after the container port has been replaced by a free one."""
    if image.instead is not None:
        argv = image.instead
    argv = (*image.prefix, *argv)
    if asked is None or free is None:
        return argv, env, None
    told = any("{port}" in text for text in (*image.prefix, *(image.instead or ()), *image.env.values()))
    moved_argv, moved_env = with_port(argv, env, asked, free)
    if not told and (moved_argv, moved_env) == (argv, env):
        moved_argv = tuple(_anywhere(asked).sub(str(free), word) for word in argv)
    if not told and (moved_argv, moved_env) == (argv, env):
        return argv, env, asked
    return tuple(_fill(word, free) for word in moved_argv), moved_env, free


def with_port(
    argv: Sequence[str], env: Mapping[str, str], old: int, new: int
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Command and variables with the port replaced wherever it is recognisable as one."""
    words = [_with_port(word, old, new) for word in argv]
    for index in range(1, len(words)):
        if words[index] == str(old) and re.fullmatch(r"(?i)--?[\w-]*port|-p", words[index - 1]):
            words[index] = str(new)
    values = {
        name: str(new) if value == str(old) and "PORT" in name.upper() else _with_port(value, old, new)
        for name, value in env.items()
    }
    return tuple(words), values


def _with_port(text: str, old: int, new: int) -> str:
    named = re.compile(rf"(?i)(port[\"']?\s*[ =:]\s*[\"']?|(?<!\S)-p[ =]){old}(?![\w.])")
    after_host = re.compile(rf"((?:localhost|\d+\.\d+\.\d+\.\d+|\]):){old}(?![\w.])")
    return after_host.sub(rf"\g<1>{new}", named.sub(rf"\g<1>{new}", text))


def _anywhere(port: int) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.-]){port}(?![\w.-])")


def _fill(text: str, port: int | None) -> str:
    return text.replace("{port}", str(port))
