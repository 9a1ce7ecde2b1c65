"""Every Triton kernel compiles for Hopper in every launch of its table; none is forgotten."""

import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from tests.interpreted import ROOT

triton = pytest.importorskip("triton")

from benchmarks.aot_table import (  # noqa: E402
    Row,
    configuration,
    modules,
    never_compiled,
    specializations_of,
)
from octavo.kernels.gpu import scaled_linear  # noqa: E402
from octavo.kernels.gpu.aot import Resources, Specialization, compile_for  # noqa: E402
from octavo.kernels.gpu.architecture import ARCHITECTURES, Architecture  # noqa: E402
from tests.benchmarks import jit_functions  # noqa: E402
from tests.benchmarks.trapping import trapping_kernel  # noqa: E402

COUNTS_OF_A_STEP = {
    "num_requests",
    "num_rows",
    "num_sampled",
    "num_tokens",
    "num_pairs",
    "num_tiles",
    "num_top",
    # The longest of the lists that rows have had so far.
    "max_biases",
    "max_length",
    "max_stops",
    "max_words",
}


def with_kernels(*kernels: object) -> ModuleType:
    """The module of functions below, as if its table had these kernels."""
    table = [Specialization(kernel, {}, {}, 4, 3) for kernel in kernels]
    module = ModuleType(jit_functions.__name__)
    vars(module).update(vars(jit_functions), aot_specializations=lambda: table)
    return module


def test_a_function_is_compiled_in_a_table_or_in_a_function_that_is() -> None:
    assert never_compiled([with_kernels(jit_functions.whole_kernel)]) == [
        "tests.benchmarks.jit_functions.forgotten_kernel"
    ]
    forgotten = with_kernels(jit_functions.forgotten_kernel)
    assert [name.rpartition(".")[2] for name in never_compiled([forgotten])] == [
        "tripled",
        "doubled",
        "whole_kernel",
    ]


def test_no_kernel_is_left_out_of_its_table() -> None:
    assert never_compiled(modules()) == []


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__.rpartition(".")[2])
def test_what_changes_from_step_to_step_is_compiled_into_no_kernel(module: ModuleType) -> None:
    """Or a step would wait for a compiler, the first time that it has one row, or 16."""
    for kernel in {each.kernel for each in specializations_of(module)}:
        counts = [each for each in kernel.params if each.name in COUNTS_OF_A_STEP]
        assert [each.name for each in counts if not each.do_not_specialize] == []


def test_a_configuration_names_types_constants_and_launch() -> None:
    kernel = SimpleNamespace(fn=SimpleNamespace(__name__="_kernel"))
    signature = {"x_ptr": "*bf16", "out_ptr": "*bf16", "scale_ptr": "*fp32", "size": "i32:16"}
    made = Specialization(kernel, signature, {"BLOCK": 64, "weight_ptr": None}, 8, 2)
    assert configuration(made) == "bf16,fp32 BLOCK=64 warps=8 stages=2"


def test_a_kernel_is_compiled_for_gpus_that_have_its_types_and_launch_it() -> None:
    kernel = SimpleNamespace(fn=SimpleNamespace(__name__="_kernel"))
    assert Specialization(kernel, {"x_ptr": "*bf16"}, {}, 8, 2).is_for(80)
    fp8 = Specialization(kernel, {"x_ptr": "*fp8e4nv"}, {}, 8, 2)
    assert list(filter(fp8.is_for, (80, 86, 89, 90, 120))) == [89, 90, 120]
    launches = {
        architecture: Specialization(kernel, {"x_ptr": "*bf16"}, {}, 8, 2, architecture)
        for architecture in ARCHITECTURES
    }
    # Of those that are listed, the one whose GPUs take the launches of each.
    for capability, listed in ((80, 80), (86, 89), (87, 80), (89, 89), (90, 90), (120, 89)):
        found = [each for each, launch in launches.items() if launch.is_for(capability)]
        assert found == [Architecture.of(listed)], capability


@pytest.mark.parametrize(
    ("operation", "capability", "spilled_bytes", "has_wgmma", "fault"),
    [
        ("decode_attention", 90, 0, False, None),
        ("decode_attention", 80, 8, False, "attention spills"),
        ("merge_parts", 100, 8, False, "attention spills"),
        ("prefill_attention", 90, 8, True, "attention spills"),
        ("prefill_attention", 90, 0, True, None),
        ("prefill_attention", 90, 0, False, "no product of a warp group"),
        ("prefill_attention", 80, 0, False, None),
        ("prefill_attention", 100, 0, False, None),
        ("w4a16_linear", 100, 8, False, None),
    ],
)
def test_attention_must_not_spill_and_prefills_multiply_as_hopper_does(
    operation: str, capability: int, spilled_bytes: int, has_wgmma: bool, fault: str | None
) -> None:
    kernel = SimpleNamespace(__module__=f"octavo.kernels.gpu.{operation}")
    took = Resources(
        registers=255, shared_bytes=0, spilled_bytes=spilled_bytes, has_wgmma=has_wgmma
    )
    assert Row(Specialization(kernel, {}, {}, 8, 2), capability, took).fault == fault


def test_a_kernel_that_does_not_compile_is_a_fault() -> None:
    kernel = SimpleNamespace(__module__="octavo.kernels.gpu.moe")
    error = "RuntimeError: compiled to a trap"
    assert Row(Specialization(kernel, {}, {}, 8, 2), 90, error).fault == error


@pytest.mark.slow
def test_a_launch_that_takes_more_shared_memory_than_there_is_fails() -> None:
    *_, largest = filter(lambda each: each.is_for(90), scaled_linear.aot_specializations())
    with pytest.raises(triton.runtime.errors.OutOfResources, match="shared memory"):
        compile_for(largest, 89)


def test_a_kernel_that_ends_in_a_trap_has_not_compiled() -> None:
    signature = {"x_ptr": "*i32"}
    whole = Specialization(jit_functions.whole_kernel, signature, {}, 4, 3)
    assert compile_for(whole, 80).registers > 0
    trapping = Specialization(trapping_kernel, signature, {}, 4, 3)
    with pytest.raises(RuntimeError, match="trap"):
        compile_for(trapping, 80)


# Minutes, the first time: what was compiled before is kept.
@pytest.mark.timeout(1200)
@pytest.mark.slow
def test_every_kernel_compiles_for_hopper_in_every_launch() -> None:
    environment = os.environ | {"TRITON_CACHE_DIR": str(ROOT / "build" / "triton")}
    command = [sys.executable, "-m", "benchmarks.aot_table", "90"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rms_norm_kernel, sm_90" in done.stdout
