"""Who imports whom: the rooms of both packages, with the arrows that the source has."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from website.drawings.svg import Box, Drawing

ROOT = Path(__file__).parents[2]
FACE = "face"
BACKENDS = {"cpu", "reference", "triton", "cuda"}
UNDRAWN = {"own_kernels"}  # a table that is no part of the face
# Rooms, each with what stands below its name and its box.
RECOMMENDER = {
    "cli": ("lares train, ...", Box(20, 60, 205, 50)),
    "recommender": ("tables to lists", Box(245, 60, 205, 50)),
    "training": ("runs, stopped and resumed", Box(20, 140, 430, 50)),
    "evaluation": ("ranks, metrics", Box(20, 220, 205, 50)),
    "objectives": ("SPT, RPT", Box(245, 220, 205, 50)),
    "integrations": ("SASRec, RecBole", Box(470, 220, 150, 50)),
    "model": ("encoder, scores, checkpoints", Box(20, 300, 430, 50)),
    "data": ("from files to samples", Box(20, 380, 350, 50)),
}
KERNELS = {
    "interop": ("from_torch", Box(470, 510, 150, 50)),
    FACE: ("refine, RecurrentCore, catalogue ops, explain", Box(20, 590, 600, 50)),
    "operators": ("torch.ops", Box(105, 670, 125, 50)),
    "own_backends": ("imports the four below", Box(320, 670, 180, 50)),
    "cpu": ("C++", Box(20, 770, 135, 50)),
    "reference": ("PyTorch", Box(175, 770, 135, 50)),
    "triton": ("Triton", Box(330, 770, 135, 50)),
    "cuda": ("CUDA", Box(485, 770, 135, 50)),
    "registry": ("which can run, which does", Box(60, 870, 260, 50)),
    "gpu": ("what both GPU backends share", Box(380, 870, 240, 50)),
    "binding": ("the C libraries", Box(120, 950, 200, 50)),
    "spec": ("what a call is: options, parameters, layouts, draws", Box(120, 1030, 500, 50)),
    "common": ("caches, checks of numbers, torch's devices", Box(120, 1110, 500, 50)),
}
# Where arrows run: the places along the two boxes' edges, and the height at which they change from one
# to the other. No arrow follows from others.
ARROWS: dict[tuple[str, str], tuple[float, ...]] = {
    ("recommender", "training"): (347,),
    ("training", "evaluation"): (122,),
    ("training", "objectives"): (347,),
    ("evaluation", "model"): (122,),
    ("objectives", "model"): (347,),
    ("integrations", "model"): (500, 285, 420),
    ("model", "data"): (195,),
    ("interop", FACE): (545,),
    (FACE, "operators"): (167,),
    (FACE, "cpu"): (60,),
    (FACE, "reference"): (265,),
    ("operators", "registry"): (165,),
    ("own_backends", "cpu"): (340, 745, 110),
    ("own_backends", "triton"): (410,),
    ("own_backends", "cuda"): (480, 745, 552),
    ("cpu", "registry"): (90,),
    ("reference", "registry"): (242,),
    ("cuda", "registry"): (510, 845, 300),
    ("cuda", "gpu"): (575,),
    ("triton", "gpu"): (420,),
    ("registry", "binding"): (220,),
    ("gpu", "spec"): (500,),
    ("binding", "spec"): (220,),
    ("spec", "common"): (370,),
}
SIDEWAYS = (("triton", "reference"), ("cli", "recommender"))  # between boxes side by side
# From one package to the other.
ACROSS = {("model", FACE): (410,), ("integrations", "interop"): (560,)}


def packages() -> str:
    """Return the drawing: rooms as boxes, imports as arrows; those that others imply are left out."""
    drawing = Drawing(640, 1260, "Who imports whom: lares, lares_kernels and csrc")
    drawing.box(Box(8, 8, 624, 434), "panel")
    drawing.text(20, 36, "lares", "title")
    drawing.text(70, 36, "the recommender; knows no backend", "small")
    drawing.box(Box(8, 458, 624, 714), "panel")
    drawing.text(20, 486, "lares_kernels", "title")
    drawing.text(140, 486, "the op; knows no recommender", "small")
    rooms = {**RECOMMENDER, **KERNELS}
    boxes = {name: box for name, (_, box) in rooms.items()}
    for edge, way in {**ARROWS, **ACROSS}.items():
        start, end = (boxes[name] for name in edge)
        bend = [(way[0], way[1]), (way[2], way[1])] if len(way) > 1 else []
        points = [(way[0], start.bottom), *bend, (way[-1], end.y)]
        drawing.arrow(points, "orange" if edge in ACROSS else "grey")
    for edge in SIDEWAYS:
        start, end = (boxes[name] for name in edge)
        along = (start.x, end.right) if start.x > end.x else (start.right, end.x)
        drawing.arrow([(x, start.y + 25) for x in along])
    drawing.arrow([(440, boxes[FACE].bottom), (440, boxes["own_backends"].y)], dashed=True)
    drawing.text(450, 660, "at the first question", "small")
    for name, (text, box) in rooms.items():
        colour = "fill-blue" if name in BACKENDS else "fill-green" if name == FACE else "box"
        drawing.box(box, "ground")
        drawing.box(box, colour)
        drawing.text(box.middle, box.y + 21, name, "mono middle bold")
        drawing.text(box.middle, box.y + 39, text, "small middle")
    csrc = drawing.labelled(Box(8, 1196, 624, 52), "", "panel")
    drawing.text(20, csrc.y + 32, "csrc", "title")
    drawing.text(
        70,
        csrc.y + 32,
        "C++ and CUDA, built as C libraries: no headers of Python or torch",
        "small",
    )
    binding = boxes["binding"]
    drawing.arrow([(binding.x, 975), (60, 975), (60, csrc.y)], dashed=True)
    drawing.text(66, 1150, "ctypes", "small")
    return drawing.svg()


def imports(package: str, drawn: Mapping[str, object]) -> set[tuple[str, str]]:
    """Return who imports whom among the rooms of a package; its other files are the face's."""
    found, rooms = set(), {*drawn, *UNDRAWN}
    for file in sorted((ROOT / package).rglob("*.py")):
        room = _room(file.relative_to(ROOT).with_suffix("").parts, rooms)
        for name in _imported(file):
            other = _room(tuple(name.split(".")), rooms) if name.split(".")[0] == package else room
            if other != room:
                found.add((room, other))
    return {(room, other) for room, other in found if {room, other} <= {*drawn}}


def _room(parts: tuple[str, ...], rooms: set[str]) -> str:
    return parts[1] if len(parts) > 1 and parts[1] in rooms else FACE


def _imported(file: Path) -> set[str]:
    """Return modules, and names taken out of them, that a file imports but for type checkers."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    checked = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in checked:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def reduced(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the edges that do not follow from others."""

    def reaches(start: str, end: str) -> bool:
        return any(a == start and (b == end or reaches(b, end)) for a, b in edges)

    return {
        (a, b) for a, b in edges if not any(c == a and d != b and reaches(d, b) for c, d in edges)
    }
