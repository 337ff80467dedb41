"""What one reasoning step moves: in a program that goes through memory, and in a kernel on chip."""

from __future__ import annotations

from itertools import pairwise

from benchmarks.core.settings import PUBLISHED
from benchmarks.report.results import read_rows
from website.drawings.svg import Box, Drawing

OPERATIONS = (
    "adapter,\nnorm",
    "Q, K, V",
    "attention",
    "output,\nnorm",
    "inner,\nGELU",
    "outer,\nnorm",
)
PLACES = (
    ("CPU", "a core's L2 cache: one thread, a tile of about 96 tokens, all layers' weights"),
    ("CUDA", "a warp's registers hold 16 tokens; weights in shared memory where they fit"),
    ("Triton", "registers hold the state (fused plan); weights in shared memory, or from L2"),
)


def kept() -> dict[str, float]:
    """Return the bytes a token and step kept for backward, by program, of the newest rows."""
    rows = [row for row in read_rows(PUBLISHED) if row.case == "memory" and row.bytes_saved]
    return {
        row.implementation: (row.bytes_saved or 0) / ((row.tokens or 1) * (row.steps or 1))
        for row in sorted(rows, key=lambda row: row.date)
    }


def step() -> str:
    """Return the drawing: memory above, the operations of a step below, arrows for what moves."""
    drawing = Drawing(640, 812, "One reasoning step: what moves in a plain program, and in the op")
    bytes_kept = kept()
    _plain(drawing, 8, bytes_kept["plain"])
    _fused(drawing, 292, bytes_kept["op:cpu"])
    drawing.box(Box(8, 676, 624, 128), "panel")
    drawing.text(20, 704, "Where on chip is", "title")
    for i, (name, text) in enumerate(PLACES):
        drawing.text(20, 732 + 26 * i, name, "bold")
        drawing.text(84, 732 + 26 * i, text, "small")
    return drawing.svg()


def _memory(drawing: Drawing, y: float, text: str) -> Box:
    return drawing.labelled(Box(20, y, 600, 38), text, "fill-orange")


def _operations(drawing: Drawing, y: float, left: float, width: float) -> list[Box]:
    pitch = width / len(OPERATIONS)
    boxes = [Box(left + i * pitch, y, pitch - 12, 46) for i in range(len(OPERATIONS))]
    for box, name in zip(boxes, OPERATIONS, strict=True):
        drawing.box(box, "ground")
        drawing.labelled(box, name, "fill-blue", "small")
    return boxes


def _plain(drawing: Drawing, y: float, bytes_kept: float) -> None:
    drawing.box(Box(8, y, 624, 272), "panel")
    drawing.text(20, y + 28, "Plain PyTorch: every operation through memory", "title")
    memory = _memory(drawing, y + 46, "memory: H, state, weights, what every operation gives")
    for box in _operations(drawing, y + 142, 20, 612):
        drawing.arrow([(box.middle - 14, memory.bottom), (box.middle - 14, box.y)], "orange")
        drawing.arrow([(box.middle + 14, box.y), (box.middle + 14, memory.bottom)], "orange")
    drawing.text(
        20, y + 214, "In each of T steps and each layer: weights and inputs in, results out."
    )
    drawing.text(20, y + 238, "Kept for backward: what every operation gave,")
    drawing.text(20, y + 259, f"{bytes_kept:,.0f} bytes a token and step", "bold")


def _fused(drawing: Drawing, y: float, bytes_kept: float) -> None:
    drawing.box(Box(8, y, 624, 376), "panel")
    drawing.text(20, y + 28, "The op: one kernel for all T steps", "title")
    memory = _memory(drawing, y + 46, "memory")
    chip = drawing.box(Box(20, y + 138, 600, 164), "fill-green")
    drawing.text(
        chip.x + 12, chip.y + 23, "on chip, over all steps: state, activations, weights", "bold"
    )
    state = drawing.labelled(Box(32, chip.y + 52, 84, 46), "state\ns(t)", "box", "small")
    boxes = _operations(drawing, chip.y + 52, 134, 488)
    drawing.arrow([(state.right, state.y + 23), (boxes[0].x, state.y + 23)], "blue")
    for before, after in pairwise(boxes):
        drawing.arrow([(before.right, state.y + 23), (after.x, state.y + 23)], "blue")
    last, below = boxes[-1], chip.y + 124
    drawing.arrow(
        [
            (last.middle, last.bottom),
            (last.middle, below),
            (state.middle, below),
            (state.middle, state.bottom),
        ],
        "blue",
    )
    drawing.text(320, below + 20, "T times, through every layer", "small middle")
    moved = (
        (70, (chip.y, ("H, once;", "GPUs: once a step"))),
        (270, (chip.y, ("weights, once", "where they fit"))),
        (500, (memory.bottom, ("z(T), once", ""))),
    )
    for x, (end, lines) in moved:
        drawing.arrow([(x, memory.bottom + chip.y - end), (x, end)], "orange")
        for i, line in enumerate(lines):
            drawing.text(x + 10, y + 107 + 17 * i, line, "small")
    drawing.text(20, y + 328, "Kept for backward, where there is one: a state a step,")
    drawing.text(20, y + 352, f"{bytes_kept:,.0f} bytes a token and step", "bold")
    drawing.text(250, y + 352, "(the rest is computed again)")
