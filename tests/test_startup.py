"""What start-up costs and brings: imports, help, mistakes that the command line alone shows."""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lares
import lares.data
import lares_kernels
from lares.model.config import LaresConfig
from lares_kernels.common.constant_result import constant_result
from lares_kernels.reference import activations
from lares_kernels.spec import config

ROOT = Path(__file__).parent.parent
MOST_SECONDS = 0.7  # of an answer of the command line
MOST_ABOVE_TORCH = 0.3
HEAVY = (
    *("torch", "numpy", "pyarrow", "duckdb"),
    *("lightning_fabric", "matplotlib", "huggingface_hub", "tqdm"),
)


def run(program: str, *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a fresh process."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def output(program: str, *arguments: str) -> str:
    """Return what a program prints; it must not fail."""
    done = run(program, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def processor_seconds() -> float:
    """Return those of the processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# Looks at what was imported also where the command ends the process.
COMMAND = f"""
import sys
from lares.cli import main
try:
    main(sys.argv[1:])
finally:
    brought = [name for name in {HEAVY!r} if name in sys.modules]
    assert not brought, brought
"""

HELP = [
    "",
    "demo",
    "train",
    "posttrain",
    "evaluate",
    "recommend",
    "runs",
    "plot",
    "data",
    "data get",
    "data info",
    "data embed",
    "doctor",
]

# In a folder that is a run with a broken model, a model folder, and a file of data.
MISTAKES = {
    "train nope.parquet": "there is no file or folder nope.parquet",
    "train nope.csv --recipe=sasrec": "there is no file or folder nope.csv",
    "train data.csv --out=/proc/x/y": "/proc/x/y cannot be made a run folder",
    "train data.csv --out=data.csv": "data.csv cannot be made a run folder",
    "train data.csv --out=data.csv/run": "data.csv/run cannot be made a run folder",
    "train data.csv --out=run": "run holds a run already; give --resume",
    "train data.csv --out=model --resume": "there is no run in model",
    "train data.csv --out=run --resume --trainer.seed=5": "run was started with other options",
    "posttrain model nope.csv": "there is no file or folder nope.csv",
    "posttrain model data.csv --out=/proc/x/y": "/proc/x/y cannot be made a run folder",
    "posttrain run data.csv": "run/best/config.json is not readable JSON",
    "data info nope": "there is no file or folder nope",
    "data info nope/": "there is no file or folder nope",
    "data embed nope.csv --model=m": "there is no file or folder nope.csv",
    "data embed data.csv --model=m --text_columns=a,a": "they must be different columns",
    "evaluate run data.csv": "run/best/config.json is not readable JSON",
    "evaluate list data.csv": "list/config.json does not hold a JSON object",
    "evaluate unknown data.csv": "unknown/config.json: ",
    "evaluate weightless data.csv": "there is no file weightless/model.safetensors",
    "evaluate model nope.csv": "there is no file or folder nope.csv",
    "recommend run --history=3": "run/best/config.json is not readable JSON",
    "recommend unknown --history=3": "unknown/config.json: ",
    "recommend weightless --history=3": "there is no file weightless/model.safetensors",
    "tarin": "did you mean 'train'?",
    "data inf": "did you mean 'info'?",
    "data get": "NAME is missing: give data set: ml-100k",
    "data get ml100k": "did you mean 'ml-100k'?",
    "data get ml-100k Books": "no categories",
    "data get amazon23": "needs a CATEGORY",
    "data get amazon23 Bookz": "did you mean 'Books'?",
    "data info": "DATA is missing: give file or folder",
    "data info x --format=excel": "data.format is 'excel'",
    "data info x --core=-1": "data.core is -1",
    "data info x --core=few": "few",
    "data embed x": "--model is missing: give name",
    "data embed x --model=m --batch_size=0": "--batch_size is 0",
    "demo --max_epochs=0": "trainer.max_epochs is 0",
    "demo --num_threads=0": "trainer.num_threads is 0",
    "demo --data=nope.csv": "there is no file or folder nope.csv",
    "demo --data=": "--data is ''",
    "demo --data=ml-100k --max_epochs=0": "trainer.max_epochs is 0",
    "demo more": "unexpected argument 'more'",
    "doctor --what": "unknown option --what",
    "train": "no data: give DATA",
    "train x --trainer.patiense=3": "did you mean '--trainer.patience'?",
    "train x --trainer.patience=many": "trainer.patience",
    "train x --trainer.patience=-1": "trainer.patience is -1",
    "train x --trainer.accelerator=zzz": "trainer.accelerator is 'zzz'; it must be one of auto",
    "train x --trainer.precision=8": "trainer.precision is '8'",
    "train x --model.core=rnn": "core is 'rnn'",
    "train x --model.activation=step": "activation is 'step'",
    "train x --model.n_heads=3": "n_heads is 3",
    "train x --data.format=excel": "data.format is 'excel'",
    "train x --data.core=-1": "data.core is -1",
    "train x --objective.alpha=-1": "alpha is -1",
    "train x --samples=most": "sampling.samples is 'most'",
    "train x --recipe=sasrek": "recipe is 'sasrek'",
    "train x --resume": "--resume needs --out",
    "posttrain": "no model: give CHECKPOINT",
    "posttrain --resume": "--resume needs --out",
    "posttrain x y --objective.kind=ppo": "objective.kind is 'ppo'; it must be one of policy",
    "posttrain --start.dropout=much": "start.dropout",
    "evaluate": "RUN_OR_MODEL is missing: give run folder",
    "evaluate a b": "a is neither a run folder",
    "evaluate a b --depth=3": "did you mean '--depths'?",
    "evaluate a b --depths=1;2": "--depths is '1;2'",
    "evaluate a b --depths=-1": "--depths is -1",
    "evaluate a b --split=train": "--split is 'train'",
    "evaluate a b --ks=0,5": "--ks is 0",
    "evaluate a b --batch_size=0": "--batch_size is 0",
    "evaluate a b --num_threads=0": "--num_threads is 0",
    "evaluate a b --data.format=excel": "data.format is 'excel'",
    "recommend": "RUN_OR_MODEL is missing: give run folder",
    "recommend x": "give --history",
    "recommend x --history=3": "x is neither a run folder",
    "recommend x --history=3,,4": "is not a history",
    "recommend x --history=3 --k=0": "--k is 0",
    "recommend x --history=3 --depth=0": "--depth is 0",
    "recommend x --history=3 --num_threads=0": "--num_threads is 0",
    "recommend x --history=3 --device=warp": "--device warp cannot be used",
    "runs nope": "there is no folder nope",
    "runs . --sort=size": "--sort is 'size'; it must be one of name",
    "runs . --output=x.xlsx": "--output is 'x.xlsx'; it must end in .csv or .json",
    "plot": "RUN is missing: give run folders",
    "plot nope": "nope is no run folder",
    "plot run": "run is damaged: run/best/config.json is not readable JSON",
    "plot run --output=x.gif": "--output is 'x.gif'; it must end in .png, .svg or .pdf",
    "plot run --metric=mrr": "--metric is 'mrr'; it must be one of ndcg@10",
    "plot run --stored --data=data.csv": "leave one of them",
    "plot run --data=nope.csv": "there is no file or folder nope.csv",
    "evaluate a b --device=cuda:first": "--device cuda:first cannot be used",
}


def answer(command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run ``lares COMMAND``, which must be quick and import nothing heavy."""
    taken = []
    for _ in range(3):  # a busy machine costs a process some of its own time, too
        before = processor_seconds()
        done = run(COMMAND, *command.split(), folder=folder)
        taken.append(processor_seconds() - before)
        assert "AssertionError" not in done.stderr, done.stderr
        if taken[-1] <= MOST_SECONDS:
            return done
    raise AssertionError(f"lares {command} takes {min(taken):.2f} s")


@pytest.mark.parametrize("command", HELP)
def test_help(command: str) -> None:
    done = answer(f"{command} --help")
    assert done.returncode == 0, done.stderr
    assert f"usage: lares {command}".strip() in done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands are given."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "data.csv").write_text("user_id,item_id\n1,2\n")
    good = json.dumps(LaresConfig(n_items=5).to_dict())
    configs = {
        "run/best": "{",
        "list": "[]",
        "unknown": '{"n_itemz": 4}',
        "weightless": good,
        "model": good,
    }
    for name, text in configs.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(text)
    (folder / "model" / "model.safetensors").write_text("")
    (folder / "run" / "config.yaml").write_text("trainer: {seed: 77}\ndata: {path: data.csv}\n")
    return folder


def state_of(folder: Path) -> dict[Path, int | None]:
    """When each file was last written; folders, in which a lock comes and goes, are there or not."""
    return {path: path.stat().st_mtime_ns if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes(command: str, folder: Path) -> None:
    before = state_of(folder)
    done = answer(command, folder)
    assert state_of(folder) == before
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert MISTAKES[command] in done.stderr


@pytest.mark.parametrize(
    "modules",
    [
        "lares_kernels, lares_kernels.spec.config, lares_kernels.spec.errors",
        "lares_kernels.spec.options, lares_kernels.spec.parameters, lares_kernels.spec.serves",
        "lares_kernels.config, lares_kernels.errors, lares_kernels.options, lares_kernels.parameters",
        "lares_kernels.binding.cpu_library, lares_kernels.binding.cuda_library",
        "lares, lares.model.config, lares.model.depth, lares.errors, lares.data, lares.training.config",
    ],
)
def test_specification_and_binding_bring_nothing(modules: str) -> None:
    heavy = "[name for name in sys.argv[1:] if name in sys.modules]"
    assert output(f"import sys, {modules}; print({heavy})", *HEAVY) == "[]\n"


def test_the_binding_works_without_torch() -> None:
    program = """
import sys
from lares_kernels import CoreConfig, cpu_peak
from lares_kernels.binding.cpu_library import instruction_sets, load
if not isinstance(load(), str):
    assert cpu_peak() > 0
    assert instruction_sets()
CoreConfig(activation="silu")
assert "torch" not in sys.modules
"""
    output(program)


def test_import_costs_little_above_torch() -> None:
    program = """
import sys, time
import torch
before, start = set(sys.modules), time.process_time()
import lares_kernels
print(time.process_time() - start)
brought = set(sys.modules) - before
assert not [name for name in brought if name.split(".")[0] != "lares_kernels"], brought
"""
    assert min(float(output(program)) for _ in range(3)) <= MOST_ABOVE_TORCH


@pytest.mark.parametrize(
    "imports",
    [
        "import torch; import lares_kernels",
        "import lares_kernels; import torch",
        "import lares_kernels, importlib.util; importlib.util.find_spec('torch'); import torch",
        "from lares_kernels import *; import torch",
        "import lares_kernels; lares_kernels.refine; import torch",
        "import lares_kernels.spec.call; lares_kernels.refine; import torch",
    ],
)
def test_operators_and_names_are_there_in_any_order(imports: str) -> None:
    program = """
torch.ops.lares_kernels.refine.default
torch.ops.lares_kernels.catalogue_ranks.default
missing = set(lares_kernels.__all__) - set(vars(lares_kernels))
assert not missing, missing
import sys
assert "torch._dynamo" not in sys.modules
assert not [finder for finder in sys.meta_path if "lares" in type(finder).__module__]
"""
    output(f"{imports}\nimport lares_kernels\n{program}")


# Finders that stand for an editable install of torch: Python's own do not find it there.
FINDERS = {
    "in front": "sys.meta_path.insert(0, finder); import lares_kernels",
    "behind": "import lares_kernels; sys.meta_path.append(finder)",
    "one that asks all others": ("import lares_kernels; sys.meta_path.insert(0, Asking())"),
    "two look-ups": (
        "import lares_kernels; sys.meta_path.append(finder)\n"
        "import importlib.util\n"
        "assert importlib.util.find_spec('torch') and importlib.util.find_spec('torch')"
    ),
    "one loader for all": (
        "import lares_kernels; sys.meta_path.append(finder); finder.loader = finder"
    ),
}


@pytest.mark.parametrize("order", FINDERS)
def test_torch_that_another_finder_finds(order: str) -> None:
    program = """
import importlib.util, sys
from importlib.machinery import PathFinder
folder = sys.argv[1]
class Finder:
    loader = None
    def find_spec(self, name, path, target=None):
        spec = PathFinder.find_spec(name, [folder]) if name == "torch" else None
        if spec is not None and self.loader:
            self.own, spec.loader = spec.loader, self
        return spec
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        self.own.exec_module(module)
class Asking:
    busy = False
    def find_spec(self, name, path, target=None):
        if name != "torch" or self.busy:
            return None
        self.busy = True
        spec = importlib.util.find_spec(name)
        self.busy = False
        return spec
finder = Finder()
real = PathFinder.find_spec.__func__
def without_torch(cls, name, path=None, target=None):
    return None if name == "torch" and path is None else real(cls, name, path, target)
if "Asking" not in sys.argv[2]:
    PathFinder.find_spec = classmethod(without_torch)
exec(sys.argv[2])
assert "torch" not in sys.modules
import torch
torch.ops.lares_kernels.refine.default
torch.ops.lares_kernels.catalogue_ranks.default
assert not [finder for finder in sys.meta_path if "lares" in type(finder).__module__]
"""
    output(program, str(Path(torch.__file__).parent.parent), FINDERS[order])


def test_compiling_first_and_loading_an_exported_program(tmp_path: Path) -> None:
    program = """
import sys
import lares_kernels as lk
import torch

core = lk.RecurrentCore(lk.CoreConfig(d_model=8, n_heads=2, d_ff=8, n_layers=1)).eval()
hidden, lengths = torch.randn(2, 3, 8), torch.tensor([3, 2])

def step(hidden, lengths):
    parameters = dict(core.named_parameters())
    return lk.refine(core.config, parameters, hidden, lengths=lengths, num_steps=2).last

with torch.no_grad():
    compiled = torch.compile(step, fullgraph=True, backend="eager")(hidden, lengths)
    torch.testing.assert_close(compiled, step(hidden, lengths))

class Step(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.core = core
    def forward(self, hidden, lengths):
        return self.core(hidden, lengths, num_steps=2).last

with torch.no_grad():
    exported = torch.export.export(Step(), (hidden, lengths))
torch.export.save(exported, sys.argv[1])
torch.save((hidden, lengths, compiled), sys.argv[2])
"""
    names = [str(tmp_path / "step.pt2"), str(tmp_path / "tensors.pt")]
    output(program, *names)
    program = """
import sys
import lares_kernels
import torch

hidden, lengths, expected = torch.load(sys.argv[2])
found = torch.export.load(sys.argv[1]).module()(hidden, lengths)
torch.testing.assert_close(found, expected)
"""
    output(program, *names)


def test_the_mark_is_that_of_torch() -> None:
    marks = [
        vars(mark(lambda: 1)) for mark in (constant_result, torch.compiler.assume_constant_result)
    ]
    assert marks[0] == marks[1] != {}


@pytest.mark.parametrize("package", [lares, lares.data, lares_kernels], ids=lambda p: p.__name__)
def test_every_public_name_has_a_home(package) -> None:
    assert package.__all__ == sorted(package.__all__)
    assert set(package._HOMES) == set(package.__all__) - {"integrations"}
    assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'refien'"):
        package.refien  # noqa: B018


PUBLIC = {
    "backends": (
        "register",
        "register_catalogue",
        "use_backend",
        "ServesCores",
        "ServesCatalogues",
    ),
    "config": ("CoreConfig",),
    "cpu_library": ("cpu_peak", "instruction_sets", "use_instruction_set"),
    "errors": ("BackendError",),
    "options": ("CallOptions", "CallTensors"),
    "parameters": ("parameter_shapes",),
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_paths_are_those_of_the_rooms(module: str) -> None:
    found = importlib.import_module(f"lares_kernels.{module}")
    assert set(PUBLIC[module]) <= set(found.__all__)
    for name in found.__all__:
        home = getattr(getattr(found, name), "__module__", "")
        assert home != found.__name__
        if name in lares_kernels.__all__:
            assert getattr(lares_kernels, name) is getattr(found, name)


def test_activations_are_those_of_the_specification() -> None:
    assert tuple(activations.ACTIVATIONS) == config.ACTIVATIONS
