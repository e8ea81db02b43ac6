"""What is published of runs beside their scores: how each was made, and checksums of its weights.

    python -m tools.records RUN... --out DIR

Writes DIR/NAME.json for each run folder: the settings, the sessions with their versions and
commits, every validation, and the SHA-256 of `best.pt` and `last.pt` with that of the
averaged weights in each. Of where data lay, and on which computer, nothing. Weights are too large
for a repository of code; with the checksums, those that are found elsewhere can be verified.

Status 0: done; 1: something cannot be written; 2: a folder is no run's; 130: interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from data.utils import DataError, carry_out, show, write_text
from data.workers import stop_by_signals
from evaluation.models import names_of
from training.checkpoint import BEST, LAST, CheckpointError
from training.history import HistoryError, circumstances, read
from training.settings import PLACES
from training.trained import Trained, load_trained

_PRIVATE = ("host",)  # of a session


def record(run: Path) -> dict[str, Any]:
    """What is to be known of a run.

    Raises:
        DataError: the folder holds none, or none that is whole.
    """
    try:
        config, lines = read(run)
        trained = {
            name: load_trained(run / name) for name in (BEST, LAST) if (run / name).is_file()
        }
    except (HistoryError, CheckpointError) as error:
        raise DataError(str(error)) from None
    if not trained:
        raise DataError(f"{run} holds no checkpoint")
    settings = config.get("config") or {}
    sessions = [
        {key: value for key, value in each.items() if key not in _PRIVATE}
        for each in config.get("sessions") or []
    ]
    return {
        "network": config.get("network"),
        "config": {key: value for key, value in settings.items() if key not in PLACES},
        "facts": config.get("facts"),
        "made": circumstances(config),
        "sessions": sessions,
        "validation": [
            {"step": line["step"], "epoch": line["epoch"], **line["valid"]}
            for line in lines
            if "valid" in line
        ],
        "checkpoints": {name: _checkpoint(each) for name, each in trained.items()},
    }


def _checkpoint(trained: Trained) -> dict[str, Any]:
    return {
        "step": trained.step,
        "epochs": trained.epochs,
        "held_out": trained.held_out,
        "sha256": trained.digest,
        "weights_sha256": weights_digest(trained.network.state_dict()),
    }


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of the averaged weights alone: names and float32 values, in the order of names.

    The same for a checkpoint and for what is exported of it.
    """
    whole = hashlib.sha256()
    for name in sorted(weights):
        whole.update(name.encode())
        whole.update(weights[name].contiguous().numpy().astype("<f4").tobytes())
    return whole.hexdigest()


def _write(options: argparse.Namespace) -> int:
    names = names_of(options.runs)
    found = {name: record(run) for name, run in zip(names, options.runs, strict=True)}
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in found.items():
        write_text(options.out / f"{name}.json", json.dumps(content, indent=1) + "\n")
        show(f"{options.out / name}.json\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.records",
        description="Write down how runs were made, and the checksums of their weights.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    return carry_out("records", partial(_write, parser.parse_args(arguments)))


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
