"""octavo.config_show: values and origins, as `octavo serve` would have them."""

from pathlib import Path

import pytest

from octavo import config_show


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """Return flag → the rest of its line, in words."""
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {words[0]: words[1:] for words in lines}


def test_each_value_has_its_origin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "flags.yaml"
    path.write_text("port: 1\nseed: 1\nblock-size: 8\nserved-model-name: [small, tiny]\n")
    monkeypatch.setenv("OCTAVO_PORT", "2")
    monkeypatch.setenv("OCTAVO_SEED", "2")
    flags = ("--port", "3", "--no-async-scheduling", "--config", str(path))
    assert config_show.main(*flags, origin=True) == 0
    lines = shown(capsys)
    assert lines["--port"] == ["3", "command", "line"]
    assert lines["--seed"] == ["2", "environment,", "OCTAVO_SEED"]
    assert lines["--block-size"] == ["8", str(path)]
    assert lines["--served-model-name"] == ["small", "tiny", str(path)]
    assert lines["--async-scheduling"] == ["false", "command", "line"]
    assert lines["--max-num-seqs"] == ["256", "default"]
    assert lines["--max-model-len"] == ["unset", "default"]
    assert "--ready-fd" not in lines


def test_without_origin_there_are_values_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert config_show.main() == 0
    assert shown(capsys)["--host"] == ["127.0.0.1"]


def test_a_mistake_is_the_one_that_serve_would_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert config_show.main("--max-num-seq", "3") == 2
    printed = capsys.readouterr()
    assert "Did you mean --max-num-seqs?" in printed.err and printed.out == ""
