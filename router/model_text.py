"""Reads what the router needs of a model: its tokenizer, its special tokens, its chat template."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from octavo.gguf_file import GGUFFile
from octavo.startup import StartupError

from .gguf_tokenizer import build_tokenizer, token_text
from .tokenizer import Tokenizer

_SPECIAL_TOKENS = ("bos", "eos")


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """A chat template, and what it may refer to."""

    origin: str
    """The file it is from, for people."""
    text: str
    variables: Mapping[str, str]
    """bos_token and eos_token, as far as the model has them."""


@dataclass(frozen=True, slots=True)
class ModelText:
    """A model's text side."""

    tokenizer: Tokenizer
    chat_template: TemplateSource | None


def load_model_text(path: Path, chat_template_path: Path | None) -> ModelText:
    """Read a model's directory or GGUF file; `chat_template_path` replaces the model's template.

    Raises:
        StartupError: a file is missing, damaged or of a kind that is not supported; names it.
    """
    if path.is_dir():
        tokenizer, template, variables = _read_directory(path)
    elif path.suffix == ".gguf":
        tokenizer, template, variables = _read_gguf(path)
    else:
        raise StartupError(
            f"{path}: the router reads tokenizers from a model's directory or GGUF file; this is"
            " neither. Start the worker with the --model that the router can see too."
        )
    origin = str(path)
    if chat_template_path is not None:
        origin, template = str(chat_template_path), _read_text(chat_template_path)
    try:
        wrapped = Tokenizer(tokenizer)
    except StartupError as error:
        raise StartupError(f"{path}: {error}") from error
    return ModelText(wrapped, template and TemplateSource(origin, template, variables) or None)


_Parts = tuple[tokenizers.Tokenizer, str | None, dict[str, str]]


def _read_directory(directory: Path) -> _Parts:
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise StartupError(
            f"{directory}: it has no tokenizer.json; the router reads no other tokenizer files"
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing more precise
        raise StartupError(f"{file}: not a tokenizer that can be read: {error}") from error
    config = _read_json(directory / "tokenizer_config.json")
    template_file = directory / "chat_template.jinja"
    template = (
        _read_text(template_file)
        if template_file.is_file()
        else _default_template(config.get("chat_template"))
    )
    variables = {}
    for name in _SPECIAL_TOKENS:
        token = config.get(f"{name}_token")
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            variables[f"{name}_token"] = token
    return tokenizer, template, variables


def _read_gguf(path: Path) -> _Parts:
    metadata = GGUFFile.open(path).metadata
    try:
        tokenizer = build_tokenizer(metadata)
    except StartupError as error:
        raise StartupError(f"{path}: {error}") from error
    found = {f"{name}_token": token_text(metadata, name) for name in _SPECIAL_TOKENS}
    variables = {name: token for name, token in found.items() if token is not None}
    return tokenizer, metadata.get("tokenizer.chat_template"), variables


def _default_template(templates: object) -> str | None:
    """Return the template; a model with several has one named "default"."""
    if isinstance(templates, list):
        return next((t["template"] for t in templates if t.get("name") == "default"), None)
    return templates if isinstance(templates, str) else None


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(_read_text(file))
    except json.JSONDecodeError as error:
        raise StartupError(f"{file}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise StartupError(f"{file}: not a JSON object")
    return content


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{file}: cannot be read: {error}") from error
