"""benchmarks.plot_scheduler_step: the chart's points are where the figures say."""

import math
from xml.etree import ElementTree

import pytest

from benchmarks.plot_scheduler_step import Row, svg, table

SVG = "{http://www.w3.org/2000/svg}"


def row(num_running: int) -> Row:
    """A step whose parts are linear, quadratic, constant, and small."""
    return {
        "num_running": num_running,
        "schedule_us": 0.5 * num_running,
        "encode_us": 2.0,
        "update_us": num_running**2 / 1000,
        "outputs_us": 3.0,
        "total_us": 1.0 * num_running,
        "p99_us": 0.0,
        "joining_us": 1.5 * num_running,
        "plan_bytes": 6 * num_running,
    }


ROWS = [row(number) for number in (64, 256, 1024, 4096)]


def test_twice_the_cost_is_as_far_up_wherever_it_is() -> None:
    lines = ElementTree.fromstring(svg(ROWS)).findall(f"{SVG}polyline")
    _, total, schedule, update, outputs, _ = [
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in lines
    ]
    steps = [right[0] - left[0] for left, right in zip(total, total[1:], strict=False)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    rises = [left[1] - right[1] for left, right in zip(total, total[1:], strict=False)]
    assert rises == pytest.approx([rises[0]] * 3, abs=0.2)
    halves = [lower[1] - upper[1] for lower, upper in zip(schedule, total, strict=True)]
    assert halves == pytest.approx([rises[0] * math.log(2) / math.log(4)] * 4, abs=0.2)
    assert update[0][1] - update[3][1] == pytest.approx(2 * sum(rises), abs=0.2)
    assert len({y for _, y in outputs}) == 1


def test_everything_is_inside_the_chart() -> None:
    root = ElementTree.fromstring(svg(ROWS))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for circle in root.findall(f"{SVG}circle"):
        assert 0 < float(circle.attrib["cx"]) < width
        assert 0 < float(circle.attrib["cy"]) < height


def test_the_table_has_a_line_for_each_number_of_rows() -> None:
    lines = table(ROWS).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert (
        lines[3]
        == "| 256 | 384 µs | 256 µs | 128 µs | 66 µs | 3 µs | 2 µs | 1.00 µs | 1,536 bytes |"
    )
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 64", "| 256", "| 1,024", "| 4,096"]
