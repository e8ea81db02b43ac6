"""Training by several processes in tests: commands, corpus, comparison."""

import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from recordings import put_pairs
from saved_runs import leaves, load
from torch import Tensor

from bsbimamba.data.audio import read, write

# Eight training files: the epoch ends, and a validation comes, after two steps. Without a warm-up,
# weights that start at zero move far enough to be compared.
OPTIONS = [
    *("--batch-size", "4", "--crop", "0.5", "--workers", "0", "--seed", "3", "--amp", "off"),
    *("--model.channels=16", "--run.log_every=1", "--run.validate_every=2"),
    *("--data.validation_files=5", "--optim.warmup_steps=0", "--loss.metric=0.05"),
    "--run.pesq_workers=1",
]


def put_corpus(root: Path) -> Path:
    """Write pairs of four training and two validation speakers; return the folder.

    Most crops of three training files are silent, so they have no label.
    """
    names = [f"s{speaker}_{i}.wav" for speaker in range(4) for i in (1, 2)]
    put_pairs(root / "train", names, 1.0)
    for name in names[::3]:
        path = root / "train" / "clean" / name
        x = read(path)
        x[:13000] = 0
        write(path, x, "FLOAT")
    put_pairs(root / "valid", [f"v{speaker}_{i}.wav" for speaker in (1, 2) for i in (1, 2)], 1.0)
    return root


def command(corpus: Path, run: Path, processes: int, *options: str) -> list[str]:
    """Return the command of a narrow abl1, by torchrun if there is more than one process."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    script = str(ROOT / "abl1" / "train.py")
    return [*launcher, script, "--data", str(corpus), "--run-folder", str(run), *OPTIONS, *options]


def train(corpus: Path, run: Path, processes: int, *options: str) -> str:
    result = subprocess.run(
        command(corpus, run, processes, *options), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stderr


def relative_difference(one: Path, other: Path, part: str) -> float:
    """Return the largest difference of a part's tensors, each relative to its own norm."""
    a, b = (
        {k: v for k, v in leaves(load(run / "last.pt")[part]).items() if isinstance(v, Tensor)}
        for run in (one, other)
    )
    assert a.keys() == b.keys()
    assert len(a) > 20
    return max(
        float((x.double() - b[name].double()).norm() / x.double().norm().clamp_min(1e-12))
        for name, x in a.items()
        if x.is_floating_point()
    )
