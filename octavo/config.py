"""Where flags come from beside the command line: the environment, then a YAML file."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import yaml
from cyclopts import App, ArgumentCollection, CycloptsError
from cyclopts.config import Dict, Env

from .serve_settings import ServeSettings


def read_config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill the flags that nothing has given yet from the file that `--config` names.

    Its keys are the flags without the dashes in front. One file can serve several commands: a flag
    of `octavo serve` that this command has no use for is passed over. A key that is no flag at all
    is an error.
    """
    path = _config_path(arguments)
    if path is None:
        return
    ours = {argument.name for argument in arguments}
    values: Any = {
        key: value
        for key, value in _load(path).items()
        if (flag := _flag(key)) in ours or flag not in _SERVE_FLAGS
    }
    # Cyclopts looks for a command's flags under the command's name.
    for command in reversed(commands):
        values = {command: values}
    Dict(data=values, source=path)(app, commands, arguments)


SOURCES = (Env("OCTAVO_", command=False, show=False), read_config_file)
"""For cyclopts, in the order of precedence; the command line goes before them."""


def _flag(name: Any) -> str:
    return f"--{name}".replace("_", "-")


_SERVE_FLAGS = frozenset(_flag(field.name) for field in dataclasses.fields(ServeSettings))


def _config_path(arguments: Sequence[Any]) -> str | None:
    for argument in arguments:
        if argument.name == "--config" and argument.tokens:
            return str(argument.tokens[-1].value)
    return None


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except OSError as error:
        raise CycloptsError(msg=f"--config: cannot read {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise CycloptsError(msg=f"--config: {path} is not valid YAML: {reason}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise CycloptsError(msg=f"--config: {path} must hold one `flag: value` a line.")
    return values
