"""octavo.hub: fetched, resumed and checked, against a hub of the tests' own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from octavo.hub import HubModel, fetch_from_hub
from octavo.startup import StartupError
from tests.octavo.fake_hub import COMMIT, FakeHub

WEIGHTS = bytes(range(256)) * 400
FILES = {
    "model.safetensors": WEIGHTS,
    "config.json": b'{"a": 1}',
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickled",
    "consolidated.safetensors": b"the same again",
    "README.md": b"# A model",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub(dict(FILES)).serving() as fake:
        point_to(fake.url, monkeypatch)
        yield fake


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT does, which huggingface_hub reads when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    # So that a small file has several pieces: what is lost is less than one.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    monkeypatch.setenv("HF_TOKEN", "")


def fetch(name: str, cache: Path, *, revision: str | None = None, is_offline: bool = False) -> Path:
    model = HubModel.parse(name, revision)
    assert model is not None
    return fetch_from_hub(model, cache, lambda line: None, is_offline=is_offline)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_weights_tokenizer_and_configuration_are_fetched_and_nothing_else(
    hub: FakeHub, tmp_path: Path
) -> None:
    found = fetch("owner/name", tmp_path)
    assert contents(found) == {
        name: FILES[name] for name in ("model.safetensors", "config.json", "tokenizer.json")
    }
    assert found.name == COMMIT


def test_what_is_there_is_not_fetched_again_and_needs_no_network(
    hub: FakeHub, tmp_path: Path
) -> None:
    found = fetch("owner/name", tmp_path)
    num_fetched = len(hub.fetched)
    assert fetch("owner/name", tmp_path) == found
    hub.refuse = (500, "")
    assert fetch("owner/name", tmp_path, is_offline=True) == found
    assert len(hub.fetched) == num_fetched


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_fails_does_not_keep_what_was_fetched_from_being_served(
    hub: FakeHub, tmp_path: Path, status: int
) -> None:
    found = fetch("owner/name", tmp_path)
    hub.refuse = (status, "")
    assert fetch("owner/name", tmp_path) == found
    hub.refuse = (403, "GatedRepo")
    with pytest.raises(StartupError, match="is gated"):
        fetch("owner/name", tmp_path)


def test_offline_without_the_model_says_what_to_do(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="owner/name at revision main is not in .* yet"):
        fetch("owner/name", tmp_path, is_offline=True)
    assert hub.fetched == []


def test_a_cut_connection_goes_on_where_it_ended(hub: FakeHub, tmp_path: Path) -> None:
    hub.cut_after = {"model.safetensors": 70_000}
    assert (fetch("owner/name", tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [wanted for name, wanted in hub.fetched if name == "model.safetensors"]
    assert ranges[0] is None and len(ranges) == 2
    assert ranges[1] is not None and 0 < int(ranges[1][len("bytes=") : -1]) <= 70_000


def test_a_download_that_was_killed_is_resumed_by_the_next(hub: FakeHub, tmp_path: Path) -> None:
    part = tmp_path / "owner--name" / COMMIT / "model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS[:50_000])
    assert (fetch("owner/name", tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert ("model.safetensors", "bytes=50000-") in hub.fetched


@pytest.mark.parametrize(
    ("name", "kind"), [("model.safetensors", "sha256"), ("config.json", "git's sha1")]
)
def test_a_wrong_checksum_is_refused_and_thrown_away(
    hub: FakeHub, tmp_path: Path, name: str, kind: str
) -> None:
    hub.wrong_checksums = {name}
    with pytest.raises(StartupError, match=f"{name} did not arrive.*{kind} is .* expected"):
        fetch("owner/name", tmp_path)
    assert not list(tmp_path.rglob(f"{name}*"))
    hub.wrong_checksums = set()
    assert (fetch("owner/name", tmp_path) / name).read_bytes() == FILES[name]


def test_a_part_that_is_not_of_this_file_is_found_out(hub: FakeHub, tmp_path: Path) -> None:
    part = tmp_path / "owner--name" / COMMIT / "model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 10)
    with pytest.raises(StartupError, match="sha256"):
        fetch("owner/name", tmp_path)
    assert (fetch("owner/name", tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("refuse", "complaint"),
    [
        ((404, "RepoNotFound"), "the hub has no model owner/name, or it is private"),
        ((401, ""), "HF_TOKEN"),
        ((403, "GatedRepo"), "owner/name is gated: accept its terms"),
        ((400, ""), "the hub refuses owner/name: 400"),
        ((500, ""), "the hub refuses owner/name: 500"),
    ],
)
def test_a_refusal_says_what_to_do(
    hub: FakeHub, tmp_path: Path, refuse: tuple[int, str], complaint: str
) -> None:
    hub.refuse = refuse
    with pytest.raises(StartupError, match=complaint):
        fetch("owner/name", tmp_path)


def test_an_unknown_revision_is_named(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="owner/name has no revision v9; check --revision"):
        fetch("owner/name", tmp_path, revision="v9")


def test_one_gguf_file_is_fetched_by_its_name(hub: FakeHub, tmp_path: Path) -> None:
    hub.files = {"q4.gguf": b"GGUF4", "q8.gguf": b"GGUF8"}
    found = fetch("owner/name:q8.gguf", tmp_path)
    assert found.read_bytes() == b"GGUF8"
    assert [name for name, _ in hub.fetched] == ["q8.gguf"]
    with pytest.raises(StartupError, match=r"no file q2\.gguf.*q4\.gguf, q8\.gguf"):
        fetch("owner/name:q2.gguf", tmp_path)
    with pytest.raises(StartupError, match=r"choose one, such as owner/name:q4\.gguf"):
        fetch("owner/name", tmp_path)


def test_pickled_weights_are_refused_with_the_way_to_convert_them(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"pickled"}
    with pytest.raises(StartupError, match=r"pickled files.*save_pretrained"):
        fetch("owner/name", tmp_path)
    assert hub.fetched == []


@pytest.mark.parametrize(
    "name", ["owner", "/owner/name", "a/b/c", "../name", "owner/..", "o/n:/etc/x.gguf", "o/n:x.bin"]
)
def test_other_names_are_no_ids(name: str) -> None:
    assert HubModel.parse(name) is None
