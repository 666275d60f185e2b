"""Hydra's and OmegaConf's errors in one line each, in the launcher's words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra.errors import MissingConfigException
from omegaconf.errors import ConfigIndexError, GrammarParseError, OmegaConfBaseException

from launcher.config.files import shorten
from launcher.errors import nearest

SWEEPER = "hydra/sweeper"
PUBLISHED_SWEEPERS = ("ax", "nevergrad", "optuna")
"""Names of sweepers that Hydra's authors publish, as `hydra-NAME-sweeper`."""
_PRICES = "pricing.usd_per_hour."
"""Before a shape's name, which the grammar of keys does not take."""


@dataclass(frozen=True)
class Names:
    """What exists: files of configs by name, config groups, and the options of each (`''`: the configs at the top)."""

    file: Callable[[str], Path | None]
    groups: Sequence[str]
    options: Callable[[str], list[str]]
    overrides: Sequence[str] = ()


def syntax(text: str, error: Exception) -> str:
    """An override that is not in Hydra's grammar. Its value is not shown: it may be a secret that was mistyped."""
    key, equals, value = text.partition("=")
    key = key.strip("'\" ")
    if not equals or not key.strip("+~"):
        return f"command line: {_printable(key)}: is no override; write key=value, group=option or ~key"
    reason = "nested too deeply" if isinstance(error, RecursionError) else _syntax_reason(first_line(error))
    prices, _, shape = key.lstrip("+").partition(_PRICES)
    if shape and not prices and shape.isprintable():
        price = value if re.fullmatch(r"[0-9.]+", value) else "PRICE"
        return f"command line: {key}: {reason}; names of shapes go in braces: '{_PRICES[:-1]}={{{shape}: {price}}}'"
    example = key if key.isprintable() else "key"
    return f"command line: {_printable(key)}: {reason}; quote special characters: '{example}=\"…\"'"


def _printable(key: str) -> str:
    return key if key and key.isprintable() else repr(key)


def _syntax_reason(reason: str) -> str:
    if reason.startswith(("Error while evaluating", "ValueError", "TypeError")):
        return "its function cannot be evaluated"
    return "the override does not follow Hydra's grammar"


def translate(error: Exception, names: Names) -> str:
    """Any error of a composition in one line."""
    if isinstance(error, MissingConfigException):
        return _missing(error, names)
    text = _flat(error)
    override = re.match(r"Error merging override (.+)", text)
    if override:
        return _merging(error, override.group(1))
    for pattern, words in _PATTERNS:
        match = re.search(pattern, text)
        if match:
            return words(match, names)
    return _other(error, names)


def _missing(error: MissingConfigException, names: Names) -> str:
    missing = str(error.missing_cfg_file)
    group, _, option = missing.rpartition("/")
    parent = re.match(r"In '([^']+)'", str(error))
    where = _default_line(names.file(parent.group(1)) if parent else None, option, group)
    if not group:
        return f"{where}defaults: {option}: no such config{nearest(option, names.options(''))}"
    options = names.options(group)
    if group == SWEEPER:
        return no_sweeper("" if where == "command line: " else where, option, options)
    if options:
        return f"{where}{group}={option}: no such option of {group}{nearest(option, options)}"
    return f"{where}{group}: no such config group{nearest(group, names.groups)}"


def no_sweeper(where: str, name: str, options: Sequence[str]) -> str:
    """A sweeper that no installed plugin of Hydra has."""
    is_known = name in PUBLISHED_SWEEPERS
    hint = f"; install it with: pip install hydra-{name}-sweeper" if is_known else nearest(name, options)
    return f"{where}{SWEEPER}={name}: no such sweeper is installed{hint}"


def _default_line(path: Path | None, option: str, group: str) -> str:
    """Prefix with the line of `path` at which its defaults choose `option`; the command line if they do not."""
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader) if path else None
    items = next((value.value for key, value in getattr(root, "value", ()) if key.value == "defaults"), ())
    for item in items:
        pairs = item.value if isinstance(item, yaml.MappingNode) else [(None, item)]
        for key, value in pairs:
            in_group = key is None or key.value.split()[-1].partition("@")[0].strip("/") == group
            if path and in_group and str(value.value).rpartition("/")[2] == option:
                return f"{shorten(path)}:{item.start_mark.line + 1}: "
    return "command line: " if group else ""


def _deleted(match: re.Match[str], _: Names) -> str:
    return f"command line: ~{match.group(1)}: there is no such key to remove"


def _other_value(match: re.Match[str], _: Names) -> str:
    key, value = match.group(1), match.group(2)
    return f"command line: ~{key}: its value is {value}; to remove it whatever it is, write ~{key}"


def _not_chosen(match: re.Match[str], _: Names) -> str:
    choice = match.group(1)
    return f"command line: ~{choice}: defaults do not choose it, so that there is nothing to remove"


def _chosen_twice(match: re.Match[str], names: Names) -> str:
    group = match.group(1)
    where = "command line: " if any(text.startswith(f"+{group}=") for text in names.overrides) else ""
    return f"{where}{group}: two options are chosen; choose one with {group}=OPTION, without a plus"


def _no_such_group(match: re.Match[str], names: Names) -> str:
    group = match.group(1)
    return f"command line: {group}: no such config group{nearest(group, names.groups)}"


def _must_choose(match: re.Match[str], names: Names) -> str:
    group = match.group(1)
    return f"{group}: no option is chosen; write {group}=OPTION; valid: {', '.join(names.options(group))}"


def _no_list(match: re.Match[str], names: Names) -> str:
    return f"{_file(match.group(1), names)}: defaults: expected a list of `- group: option`"


def _bad_item(match: re.Match[str], names: Names) -> str:
    place = f"{_file(match.group(1), names)}: " if match.group(1) else ""
    return f"{place}defaults: expected a list of `- group: option`, one group in each item"


def _unmergeable(match: re.Match[str], names: Names) -> str:
    """A list in the place of a mapping of another file, or the reverse. OmegaConf does not say where."""
    name, wanted, got = match.groups()
    kinds = {"DictConfig": "a mapping", "ListConfig": "a list"}
    reason = f"expected {kinds[wanted]}, got {kinds[got]}"
    path = names.file(name)
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader) if path else None
    for key, value in getattr(root, "value", ()):
        if isinstance(value, yaml.SequenceNode) and key.value in names.groups and got == "ListConfig":
            return f"{_file(name, names)}:{key.start_mark.line + 1}: {key.value}: {reason}"
    return f"{_file(name, names)}: in a key that another file sets too: {reason}"


def _in_file(match: re.Match[str], names: Names) -> str:
    reason = re.sub(r"^\w+ raised while composing config: ", "", match.group(2))
    return f"{_file(match.group(1), names)}: {_plain(reason)}"


def _file(name: str, names: Names) -> str:
    path = names.file(name)
    return shorten(path) if path else name


def _merging(error: Exception, override: str) -> str:
    """An override that OmegaConf cannot put into the tree."""
    key = override.lstrip("+").partition("=")[0]
    cause = error.__cause__
    if isinstance(cause, GrammarParseError):
        return f"command line: {key}: is no valid interpolation; write ${{KEY}} or ${{oc.env:NAME}}"
    entry = re.match(r"(.*?)\.(\d+)(?=\.|$)", key)
    if isinstance(cause, IndexError | ConfigIndexError) and entry:
        return f"command line: {key}: {entry.group(1)} has no entry {entry.group(2)}; the first is 0"
    return f"command line: {key}: cannot be set; a key above it is a list or a text"


_PATTERNS: tuple[tuple[str, Callable[[re.Match[str], Names], str]], ...] = (
    (r"Could not delete from config\. '([^']+)' does not exist", _deleted),
    (r"Could not delete from config\. The value of '([^']+)' is (.*) and not", _other_value),
    (r"Could not delete '([^']+)'", _not_chosen),
    (r"Multiple values for (\S+)\.", _chosen_twice),
    (r"(\S+) appears more than once in the final defaults list", _chosen_twice),
    (r"looks like a config group override, but config group '([^']+)'", _no_such_group),
    (r"You must specify '([^']+)'", _must_choose),
    (r"Invalid defaults list in '([^']+)'", _no_list),
    (r"(?:In (\S+): )?(?:Too many keys in default item|Missing group name|Unsupported .*in defaults)", _bad_item),
    (r"In '([^']+)': .*Cannot merge (\w+) with (\w+)", _unmergeable),
    (r"In '?([^':]+)'?: (.+)", _in_file),
)
"""What Hydra says, and how to say it."""


def _other(error: Exception, _: Names) -> str:
    cause = error.__cause__
    source = cause if isinstance(cause, OmegaConfBaseException) else error
    key = f"{source.full_key}: " if isinstance(source, OmegaConfBaseException) and source.full_key else ""
    return f"{key}{_plain(first_line(source))}"


def _plain(text: str) -> str:
    return re.sub(r"\s*(full_key|object_type): ?\S*", "", text)


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """The first line of an error's text that is not empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
