"""Downloads one file of the hub: resumed where it was cut, checked before it gets its name."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_token, hf_hub_url
from huggingface_hub.file_download import http_get

from .startup import StartupError


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file as the hub's metadata describe it."""

    repository: str
    commit: str
    name: str
    num_bytes: int | None
    sha256: str | None
    """Of a large file; a small one has only the next."""
    git_sha1: str | None
    """As git names the content."""


def download(file: HubFile, target: Path, say: Callable[[str], None]) -> None:
    """Fetch the file unless `target` is there; it appears whole and checked, or not at all.

    What arrives before a connection is lost stays in `target`.part, and the next call goes on from
    there. The bar on a terminal is huggingface_hub's.

    Raises:
        StartupError: the content is not what the hub's metadata say. It was thrown away.
        HTTPError, OSError: as huggingface_hub has them.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    token = get_token()
    url = hf_hub_url(file.repository, file.name, revision=file.commit)
    with part.open("ab") as stream:
        arrived = stream.tell()
        if file.num_bytes is not None and arrived > file.num_bytes:
            stream.truncate(0)
            arrived = 0
        say(f"Downloading {file.repository}/{file.name}{_size(file)}{_resumed(arrived)}")
        http_get(
            url,
            stream,
            resume_size=arrived,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            expected_size=file.num_bytes,
            displayed_filename=file.name,
        )
        stream.flush()
        # On disk before the rename, or a power cut could leave the name with half the content.
        os.fsync(stream.fileno())
    if wrong := _difference(part, file):
        part.unlink()
        raise StartupError(
            f"{file.repository}/{file.name} did not arrive as the hub describes it: {wrong}."
            " It was thrown away; try again."
        )
    part.rename(target)


def _difference(path: Path, file: HubFile) -> str | None:
    """Say in what the content differs from the hub's metadata; None if in nothing."""
    size = path.stat().st_size
    if file.num_bytes is not None and size != file.num_bytes:
        return f"it has {size:,} bytes, expected {file.num_bytes:,}"
    with path.open("rb") as stream:
        if file.sha256 is not None:
            kind, expected = "sha256", file.sha256
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        elif file.git_sha1 is not None:
            kind, expected = "git's sha1", file.git_sha1
            found = hashlib.sha1(b"blob %d\0" % size + stream.read()).hexdigest()
        else:
            return "the hub gives no checksum"
    return None if found == expected else f"its {kind} is {found}, expected {expected}"


def _size(file: HubFile) -> str:
    return "" if file.num_bytes is None else f" ({file.num_bytes / 1e6:,.1f} MB)"


def _resumed(arrived: int) -> str:
    return f", going on at {arrived / 1e6:,.1f} MB" if arrived else ""
