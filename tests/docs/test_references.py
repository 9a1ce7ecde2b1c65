"""What the documents point to is there: links, and the files that they name."""

import re
import subprocess
from pathlib import PurePosixPath

from tests.docs.commands import ROOT, documents

_LINK = re.compile(r"\]\(([^)#:]+)\)")
_FILE = re.compile(r"`([\w/.-]+\.(?:md|proto|py))`")


def test_links_lead_to_files() -> None:
    broken = [
        (document.name, target)
        for document in documents()
        for target in _LINK.findall(document.read_text())
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_files_that_are_named_exist() -> None:
    """By the end of their path, as one speaks of them; `settings.py` is one of several."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [PurePosixPath(name) for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    missing = [
        (document.name, name)
        for document in documents()
        for name in _FILE.findall(document.read_text())
        if not any(path.match(name) for path in paths)
    ]
    assert missing == []
