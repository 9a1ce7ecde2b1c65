"""octavo.gguf_file against the gguf package, and against damaged files."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.gguf_file import GGUFFile
from octavo.startup import StartupError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file with every kind of value and three types of tensor."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_uint32("a.uint32", 7)
    writer.add_float32("a.float32", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "blöck")
    writer.add_array("a.strings", ["", "ä", "longer than one"])
    writer.add_array("a.numbers", [1, -2, 3])
    weights = np.arange(6 * 64, dtype=np.float32).reshape(6, 64)
    writer.add_tensor("plain", weights)
    writer.add_tensor("half", weights.astype(np.float16))
    quantized = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("quantized", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    # The writer pads the end; without the padding every byte matters.
    end = max(tensor.offset + tensor.num_bytes for tensor in GGUFFile.open(path).tensors.values())
    path.write_bytes(path.read_bytes()[:end])
    return path


def test_metadata_and_tensors_are_what_the_gguf_package_reads(written: Path) -> None:
    ours, theirs = GGUFFile.open(written), gguf.GGUFReader(str(written))
    expected = {
        key: field.contents() for key, field in theirs.fields.items() if not key.startswith("GGUF.")
    }
    assert ours.metadata == expected
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        place = ours.tensors[tensor.name]
        assert place.shape == tuple(int(size) for size in reversed(tensor.shape))
        assert place.type == tensor.tensor_type
        assert ours.read(place).tobytes() == tensor.data.tobytes()


def test_a_file_cut_anywhere_is_refused_by_name(written: Path, tmp_path: Path) -> None:
    whole = written.read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in [0, 3, 4, 20, 100, len(whole) // 2, len(whole) - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(StartupError, match="cut.gguf: .*GGUF file"):
            GGUFFile.open(cut)


def test_a_cut_in_the_data_names_the_tensor_and_both_sizes(written: Path, tmp_path: Path) -> None:
    whole = written.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: len(whole) - 100])
    with pytest.raises(StartupError, match=rf"tensor quantized ends at byte {len(whole)}"):
        GGUFFile.open(cut)


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(StartupError, match="does not begin with the letters GGUF"):
        GGUFFile.open(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_flipped_bytes_never_raise_anything_but_a_startup_error(
    written: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(written.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, min(len(damaged), 700) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "model.gguf"
    path.write_bytes(damaged)
    try:
        opened = GGUFFile.open(path)
    except StartupError:
        return
    for tensor in opened.tensors.values():
        assert opened.read(tensor).nbytes == tensor.num_bytes
