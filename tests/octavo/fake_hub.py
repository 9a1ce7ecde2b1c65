"""A small Hugging Face hub, of its own making: metadata and files, and what can go wrong."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.octavo.http_server import QuietHandler, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """One repository, `owner/name`.

    Attributes:
        files: name → content.
        wrong_checksums: names of files whose metadata do not fit their content.
        cut_after: name → bytes after which the connection is cut, once.
        refuse: a status to answer everything with, and the hub's code for the error.
        fetched: name and Range header of each file that was asked for.
    """

    files: dict[str, bytes]
    wrong_checksums: set[str] = field(default_factory=set)
    cut_after: dict[str, int] = field(default_factory=dict)
    refuse: tuple[int, str] | None = None
    fetched: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    @contextlib.contextmanager
    def serving(self) -> Iterator["FakeHub"]:
        with serving(_handler(self)) as self.url:
            yield self

    def metadata(self) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = []
        for name, content in self.files.items():
            seen = content + b"!" if name in self.wrong_checksums else content
            git = hashlib.sha1(b"blob %d\0" % len(content) + seen).hexdigest()
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git}
            if name.endswith((".safetensors", ".gguf")):
                digest = hashlib.sha256(seen).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 9}
            siblings.append(entry)
        return {"id": "owner/name", "modelId": "owner/name", "sha": COMMIT, "siblings": siblings}


def _handler(hub: FakeHub) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if hub.refuse:
                status, code = hub.refuse
                self.answer(status, headers={"X-Error-Code": code})
            elif re.fullmatch(r"/api/models/owner/name/revision/main", path):
                self.answer(200, json.dumps(hub.metadata()).encode())
            elif path.startswith("/api/models/owner/name/revision/"):
                self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
            elif path.startswith(f"/owner/name/resolve/{COMMIT}/"):
                self._send_file(path.partition(COMMIT + "/")[2])
            else:
                self.answer(404, headers={"X-Error-Code": "RepoNotFound"})

        def _send_file(self, name: str) -> None:
            wanted = self.headers["Range"]
            hub.fetched.append((name, wanted))
            content = hub.files[name]
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            rest = content[start:]
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(rest)))
            if wanted:
                span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", span)
            self.end_headers()
            self.wfile.write(rest[: hub.cut_after.pop(name, None)])

    return Handler
