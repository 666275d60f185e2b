"""The model's own chat template: messages to one prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment


class ChatTemplate:
    """A Jinja template from a model file, run in a sandbox. `special` are the texts of the tokens it may name.

    Raises jinja2.TemplateError where `source` is no template.
    """

    def __init__(self, source: str, special: Mapping[str, str | None]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        self.source = source
        self._template = environment.from_string(source)
        self._special = dict(special)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt for the assistant's next turn. Raises jinja2.TemplateError for messages it does not take."""
        return self._template.render(messages=messages, add_generation_prompt=True, **self._special)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
