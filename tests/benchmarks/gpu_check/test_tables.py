"""benchmarks.gpu_check: tables fit a terminal, whatever a run has found, and goals come last."""

from typing import Any

from benchmarks.gpu_check.bars import BARS, OVER_ZEROMQ
from benchmarks.gpu_check.models import LLAMA_8B, QWEN3_600M
from benchmarks.gpu_check.tables import WIDTH, lines_of
from benchmarks.gpu_check.workloads import nano_vllm, same

ENGINE = {
    "model": QWEN3_600M.name,
    "workload": nano_vllm().name,
    "output_tok_s": 27_123.4,
    "percent_of_floor": 75.1,
    "step_ms_p50": 9.876,
    "step_ms_p99": 123.4,
    "decode_ms_p50": 8.5,
    "decode_percent_of_floor": 80.2,
    "gpu_idle_percent": 0.03,
    "kv_waste_percent": 2.5,
    "host_us": 812.3,
    "peak_gib": 125.4,
}
CONTENT: dict[str, Any] = {
    "machine": {"gpu": {"name": "NVIDIA H200"}, "cuda": "13.0", "torch": "2.11.0"},
    "probes": [{"name": "read", "value": 4312.5, "unit": "GB/s"}],
    "tests": [{"tests": "tests/gpu", "passed": 10, "failed": 1, "skipped": 0, "is_right": False}],
    "kernels": [
        {
            "kernel": "prefill_attention",
            "shape": "64 x 1 of 1K + 1 x 2K of 2K, heads 32/8 x 128, block 16",
            "is_right": True,
            "deviation": 0.0034,
            "us": 1234.56,
            "gb_s": 123.4,
            "tflop_s": 512.3,
            "percent_of_roofline": 65,
        },
        {"kernel": "moe", "shape": "64", "error": "OutOfResources: " + "of shared memory " * 20},
    ],
    "engine": [ENGINE, {"model": LLAMA_8B.name, "error": "not done after 90 s", "stderr": [""]}],
    "ablations": [
        {"engine": "all of it", "decode_ms_p50": 4.0},
        {"engine": OVER_ZEROMQ, "gpu_idle_percent": 0.5, "cpu_us_per_step": {"encode": 30.0}},
        {"engine": "no overlap", "changed": 0, "is_right": True},
    ],
    "profile": [{"kernel": "k" * 200, "percent": 12.3, "calls": 31, "us": 25.1}],
    "serving": [{"requests_s": 32, "ttft_ms_p50": 31.2, "cpu_us_per_step": {"encode": 30.0}}],
}


def test_tables_fit_a_terminal_and_say_what_went_wrong() -> None:
    content = CONTENT | {"bars": [bar.row(CONTENT) for bar in BARS]}
    lines = list(lines_of(content))
    assert max(map(len, lines)) <= WIDTH
    shown = "\n".join(lines)
    assert lines[0] == "NVIDIA H200, cuda 13.0, torch 2.11.0"
    assert "  prefill_attention\n" in shown and "moe" in shown
    assert shown.count("of shared memory") > 1 and "not done after 90 s" in shown
    assert shown.index("kkkk") < shown.index("What we want") < shown.index("not measured")
    assert lines[-1].split()[-1] == "measured"


def test_a_run_that_has_found_nothing_has_no_tables() -> None:
    assert list(lines_of({"machine": {}})) == []


def test_a_figure_is_beside_its_name() -> None:
    heading, row = (line.split() for line in list(lines_of({"probes": CONTENT["probes"]}))[2:])
    assert heading == ["probe", "value", "unit"] and row == ["read", "4,312", "GB/s"]


def test_workloads_that_outlast_their_row_are_cut() -> None:
    long = ENGINE | {"workload": same(1, 1, 1).name + "x" * 90}
    assert any("…" in line for line in lines_of({"engine": [long]}))
