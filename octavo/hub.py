"""Fetches models from the Hugging Face hub: what to fetch, where it is kept, what can go wrong.

A model is `owner/name`, or `owner/name:file.gguf`. It is kept in a directory of its own for each
commit, and a small file for each revision says which commit it was, so that no network is needed
the second time (`--offline`). HF_ENDPOINT and HF_TOKEN mean what they mean to huggingface_hub.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling

from .file_lock import file_lock
from .hub_download import HubFile, download
from .startup import StartupError

_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?::(\w[\w./ -]*\.gguf))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_TEXTS = frozenset(
    {
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    }
)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model on the hub."""

    repository: str
    """owner/name."""
    file_name: str | None
    """The GGUF file of it that is meant, or None for the safetensors."""
    revision: str = "main"
    """Branch, tag or commit."""

    @staticmethod
    def parse(name: str, revision: str | None = None) -> "HubModel | None":
        """Return the model that `name` is an id of, or None if it has another form."""
        match = _NAME.fullmatch(name)
        if match is None or ".." in name:
            return None
        return HubModel(match[1], match[2], revision or "main")

    def __str__(self) -> str:
        return f"{self.repository}:{self.file_name}" if self.file_name else self.repository


def fetch_from_hub(
    model: HubModel, cache: Path, say: Callable[[str], None], *, is_offline: bool = False
) -> Path:
    """Return the model's directory or GGUF file under `cache`, fetched unless it is there.

    Raises:
        StartupError: it cannot be had; the text says why and what to do.
    """
    directory = cache / model.repository.replace("/", "--")
    kept = _kept(model, directory)
    if is_offline or (kept and _COMMIT.fullmatch(model.revision)):
        if kept is None:
            raise StartupError(
                f"{model} at revision {model.revision} is not in {cache} yet."
                " Start once with a network, and without --offline, to fetch it."
            )
        return kept
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with file_lock(directory / ".lock"):
            return _fetch(model, directory, say)
    except HTTPError as error:
        # Also raised for a status, by huggingface_hub: from 500 on the hub is as good as away.
        is_refusal = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
        if kept is not None and not is_refusal:
            say(f"The hub cannot be reached ({error}); serving what was fetched before: {kept}")
            return kept
        if isinstance(error, HfHubHTTPError):
            raise StartupError(_explain(model, error)) from error
        raise StartupError(
            f"cannot fetch {model}: {error or type(error).__name__}. What has arrived is kept; try"
            " again, or give the path of a model on this machine."
        ) from error
    except OSError as error:
        raise StartupError(f"cannot fetch {model} into {directory}: {error}") from error


def _fetch(model: HubModel, directory: Path, say: Callable[[str], None]) -> Path:
    info = HfApi().model_info(model.repository, revision=model.revision, files_metadata=True)
    commit = info.sha or ""
    if not _COMMIT.fullmatch(commit):
        raise StartupError(f"the hub names no commit for {model} at {model.revision}.")
    wanted = _choose(model, info.siblings or [])
    target = directory / commit
    for sibling in wanted:
        download(_hub_file(model.repository, commit, sibling), target / sibling.rfilename, say)
    reference = _reference(model, directory)
    reference.parent.mkdir(exist_ok=True)
    # Written last and at once: who reads it finds all files.
    temporary = reference.with_suffix(".new")
    temporary.write_text(commit)
    os.replace(temporary, reference)
    return target / model.file_name if model.file_name else target


def _choose(model: HubModel, siblings: Sequence[RepoSibling]) -> list[RepoSibling]:
    """Return the files to fetch, small ones first; raises StartupError if there are no weights."""
    names = [sibling.rfilename for sibling in siblings]
    if model.file_name is not None:
        if model.file_name not in names:
            there = ", ".join(name for name in names if name.endswith(".gguf")) or "none"
            raise StartupError(
                f"{model.repository} has no file {model.file_name}. Its GGUF files: {there}."
            )
        return [sibling for sibling in siblings if sibling.rfilename == model.file_name]
    if not any(_WEIGHTS.fullmatch(name) for name in names):
        raise StartupError(_no_weights(model, names))
    chosen = [
        sibling
        for sibling in siblings
        if sibling.rfilename in _TEXTS or _WEIGHTS.fullmatch(sibling.rfilename)
    ]
    return sorted(chosen, key=lambda sibling: sibling.size or 0)


def _no_weights(model: HubModel, names: Sequence[str]) -> str:
    if ggufs := [name for name in names if name.endswith(".gguf")]:
        return f"{model} has GGUF files: choose one, such as {model.repository}:{ggufs[0]}."
    if any(name.endswith(_PICKLED) for name in names):
        return (
            f"{model} has its weights as pickled files (.bin, .pt), which can run code and are"
            " never loaded. Convert them: load the model with transformers' from_pretrained and"
            " write it with save_pretrained(DIRECTORY), which makes safetensors, and serve that."
        )
    return f"{model} has no model.safetensors."


def _hub_file(repository: str, commit: str, sibling: RepoSibling) -> HubFile:
    return HubFile(
        repository=repository,
        commit=commit,
        name=sibling.rfilename,
        num_bytes=sibling.size,
        sha256=sibling.lfs.sha256 if sibling.lfs else None,
        git_sha1=sibling.blob_id,
    )


def _reference(model: HubModel, directory: Path) -> Path:
    """Return the file that names the commit of the model's last complete download."""
    parts = [model.revision, *([model.file_name] if model.file_name else [])]
    return directory / "references" / re.sub(r"[^\w.-]", "_", "+".join(parts))


def _kept(model: HubModel, directory: Path) -> Path | None:
    """Return where the model is, if it was fetched as a whole before."""
    reference = _reference(model, directory)
    if not reference.exists():
        return None
    target = directory / reference.read_text()
    path = target / model.file_name if model.file_name else target
    return path if path.exists() else None


def _explain(model: HubModel, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if isinstance(error, GatedRepoError) or status == 403:
        return f"{model} is gated: accept its terms on the hub, and set HF_TOKEN to your token."
    if isinstance(error, RevisionNotFoundError):
        return f"{model} has no revision {model.revision}; check --revision."
    if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
        # The hub does not tell a private model from none.
        return (
            f"the hub has no model {model.repository}, or it is private: check the name, or set"
            " HF_TOKEN to a token that may read it."
        )
    return f"the hub refuses {model}: {status} {error.server_message or ''}. Try again later."
