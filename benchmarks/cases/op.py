"""The cases that are timed, one value each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from lares_kernels import CoreConfig

HEAD_WIDTH = 32
DROPOUT = 0.5

# What the tensors of a case depend on, but for its device and its mixer.
SHAPE = ("d_model", "n_heads", "d_ff", "n_layers", "steps", "batch", "max_length", "lengths")
# Which implementations run a case beside the op's own.
ALL = ("plain", "compiled", "packed")
PLAIN = ("plain",)


@dataclass(frozen=True)
class Case:
    """One shape, one pass, one precision, one number of threads.

    Attributes:
        name: of the group and the value that is varied; several cases may share it.
        steps: ``T``.
        lengths: distribution of the sequence lengths (:mod:`benchmarks.cases.lengths`).
        backward: forward and backward with dropout, else forward alone without.
        precision: of the products: ``fp32``, ``bf16``, or on a GPU ``tf32``.
        baselines: implementations compared beside the op's backends.
        every_backend: time every usable backend of the op, else only the fastest that serves it.
        instruction_set: that the CPU kernel is held to; empty for its choice.
        device: type of the device, ``cpu`` or ``cuda``.
        dropped: whether dropout is on; None: where ``backward``.
        mixer: of the core; those but ``attention`` compute padding too.
    """

    name: str
    d_model: int = 64
    n_heads: int = 2
    d_ff: int = 256
    n_layers: int = 2
    steps: int = 4
    batch: int = 512
    max_length: int = 20
    lengths: str = "prefixes"
    backward: bool = False
    precision: str = "fp32"
    threads: int = 1
    baselines: tuple[str, ...] = PLAIN
    every_backend: bool = False
    instruction_set: str = ""
    device: str = "cpu"
    dropped: bool | None = None
    mixer: str = "attention"

    @property
    def drops(self) -> bool:
        """Whether dropout is on."""
        return self.backward if self.dropped is None else self.dropped

    @property
    def rate(self) -> float:
        """Of dropout, of both kinds."""
        return DROPOUT if self.drops else 0.0

    @property
    def config(self) -> CoreConfig:
        return CoreConfig(
            *(self.d_model, self.n_heads, self.d_ff, self.n_layers),
            dropout=DROPOUT,
            attn_dropout=DROPOUT,
            mixer=self.mixer,
            window=0 if self.mixer == "attention" else self.max_length,
        )

    @property
    def passes(self) -> str:
        return "forward+backward" if self.backward else "forward"

    @property
    def shape(self) -> Case:
        """What the tensors of the case depend on: cases of one shape share them."""
        same = (*SHAPE, "device", "mixer")
        return Case("", **{name: getattr(self, name) for name in same})

    def __str__(self) -> str:
        return f"{self.name}-{self.passes}-{self.precision}-{self.threads}t"


def wide(name: str, d_model: int, **others: object) -> Case:
    """A case of another width, heads as wide as ever."""
    return Case(  # type: ignore[arg-type]
        name, d_model=d_model, n_heads=d_model // HEAD_WIDTH, d_ff=4 * d_model, **others
    )


def both_passes(cases: list[Case]) -> list[Case]:
    return [replace(case, backward=backward) for case in cases for backward in (False, True)]


def main_cases() -> list[Case]:
    """The published shape on a batch of training prefixes."""
    return [
        replace(case, precision=p, threads=n, every_backend=(n, p) == (1, "fp32"))
        for n in (1, 2)
        for p in ("fp32", "bf16")
        for case in both_passes([Case("main", baselines=ALL)])
    ]


def single_cases() -> list[Case]:
    """One sequence, as when a recommendation is asked for."""
    return [
        Case(f"single-{n}", batch=1, max_length=n, lengths="full", precision=p, baselines=peers)
        for n in (8, 20)
        for p, peers in (("fp32", ALL), ("bf16", PLAIN))
    ]


def sweep_cases() -> list[Case]:
    """One value away from the main case at a time; batches of the L sweep hold equally many slots."""
    # What a machine without AVX-512 would see; named like the set, whose own peak it is held to.
    cases = [Case("avx2", instruction_set="avx2")]
    cases += [wide("width-128", 128, batch=256), wide("width-256", 256, batch=64)]
    for longest, batch in ((20, 320), (50, 128), (200, 32)):
        cases += [
            Case(f"length-{longest}-{kind}", batch=batch, max_length=longest, lengths=kind)
            for kind in ("geometric", "full")
        ]
    cases.append(Case("layers-1", n_layers=1))
    cases += [Case(f"steps-{steps}", steps=steps) for steps in (1, 8, 12)]
    cases += [Case(f"batch-{batch}", batch=batch) for batch in (1, 4, 16, 64, 256, 1024)]
    return both_passes(cases)


def core_cases() -> list[Case]:
    """The cores that mix the whole window."""
    given = {"batch": 256, "lengths": "geometric"}
    sizes = product(("filter", "bsarec"), (20, 50))
    return both_passes(
        [Case(f"{mixer}-{n}", mixer=mixer, max_length=n, **given) for mixer, n in sizes]
    )


# What a call costs beside its arithmetic: one token, next to no work.
CALL_OVERHEAD = Case(
    *("call-overhead", 8, 1, 32), n_layers=1, steps=1, batch=1, max_length=1, lengths="full"
)
MEMORY = Case("memory", steps=12, backward=True)
ALL_TIMED = [*main_cases(), *single_cases(), *both_passes([CALL_OVERHEAD]), *sweep_cases()]
# What a default run leaves out: values between others of the same sweep, and bf16 on two threads.
ONLY_FULL = (
    "length-20-geometric",
    "length-50-full",
    "steps-8",
    "batch-4",
    "batch-64",
    "batch-1024",
)
# Compiling takes seconds: in a quick run it takes part once.
QUICK = (
    Case("main", baselines=ALL),
    Case("main", backward=True),
    Case("main", precision="bf16", baselines=("plain", "packed")),
    Case("single-20", batch=1, lengths="full", baselines=("plain", "packed")),
)


def timed_cases(effort: str) -> list[Case]:
    """The cases of a run that is ``quick``, ``default`` or ``full``."""
    if effort == "quick":
        return list(QUICK)
    if effort == "full":
        return ALL_TIMED
    return [
        _compiled_once(case)
        for case in ALL_TIMED
        if case.name not in ONLY_FULL and not (case.threads == 2 and case.precision == "bf16")
    ]


def _compiled_once(case: Case) -> Case:
    """The case without the compiled program where that would take longer than all the rest of it."""
    if case.threads == 1 and not (case.backward and case.precision == "bf16"):
        return case
    return replace(case, baselines=tuple(name for name in case.baselines if name != "compiled"))
