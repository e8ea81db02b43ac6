"""Score trained runs, or any system's files, against clean speech; compare them.

    python evaluate.py RUN... --data ROOT --out DIR
    python evaluate.py --clean DIR --enhanced DIR... [--noisy DIR] --out DIR

Writes DIR/per_file.csv, DIR/summary.json, DIR/table.md, DIR/table.tex and DIR/report.html, and
prints the tables; of runs with a training log, also DIR/curve.png. A run's enhanced files are kept
in DIR/enhanced/RUN. Status 0: done; 1: `--require-gain` is not met, or the disk is full; 2:
something is wrong with the command line or the data, as a message on stderr says; 130: interrupted.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bsbimamba.data.corpus import find_recordings, list_pairs
from bsbimamba.openmp import usable_cores
from bsbimamba.report.analysis import NOISY, Analysis, System, choose_baseline, models_of, summary
from bsbimamba.report.figures import write_curve
from bsbimamba.report.html import CLEAN, report
from bsbimamba.report.scoring import Task, score_files
from bsbimamba.report.tables import latex, markdown
from bsbimamba.utils import DataError, carry_out, say, some, write_text

# The processes that score import this file: what needs torch is imported where it is used.

log = logging.getLogger("evaluate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(
        "evaluate",
        description="Score trained runs, or any system's files, and compare them.",
        allow_abbrev=False,
    )
    folder: Any = {"type": Path, "metavar": "DIR"}
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders, checkpoints")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="a corpus with test pairs")
    parser.add_argument("--clean", **folder)
    parser.add_argument("--enhanced", **folder, nargs="+", default=[], help="named as in --clean")
    parser.add_argument("--noisy", **folder)
    parser.add_argument("--out", **folder, required=True)
    parser.add_argument("--workers", type=int, metavar="N", default=usable_cores())
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--baseline", metavar="NAME", help="what the others are compared with")
    gain = "status 1 unless every PESQ is above the noisy"
    parser.add_argument("--require-gain", action="store_true", help=gain)
    options = parser.parse_args(arguments)
    of_runs = options.data and options.runs and not options.noisy
    of_folders = options.clean and options.enhanced
    others = (options.clean, options.enhanced) if of_runs else (options.data, options.runs)
    if not (of_runs or of_folders) or any(others):
        parser.error("name RUN... --data ROOT, or --clean DIR --enhanced DIR... [--noisy DIR]")
    if options.require_gain and not (options.runs or options.noisy):
        parser.error("--require-gain needs --noisy")
    return carry_out("evaluate", partial(_evaluate, options))


def _evaluate(options: argparse.Namespace) -> int:
    clean, systems = _of_runs(options) if options.runs else _of_folders(options)
    data = options.data or options.clean
    # All systems at once, so that no process waits for the last file of one.
    tasks = [
        Task(system.name, name, clean[name], system.files.get(name, "there is no file of its name"))
        for system in systems
        for name in sorted(clean)
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    rows = score_files(tasks, options.workers)
    per_file = rows.drop(columns="faults").to_csv(index=False, float_format="%.6f")
    write_text(options.out / "per_file.csv", per_file)
    analysis = Analysis(systems, rows, clean, data, options.baseline)
    for text in analysis.warnings:
        log.warning("Warning: %s", text)
    table = markdown(analysis)
    write_text(options.out / "summary.json", summary(analysis))
    write_text(options.out / "table.md", table)
    write_text(options.out / "table.tex", latex(analysis))
    write_curve(analysis, options.out)
    write_text(options.out / "report.html", report(analysis, options.out))
    print(table, end="", flush=True)
    return _judge(rows) if options.require_gain else 0


def _of_runs(options: argparse.Namespace) -> tuple[Mapping[str, Path], list[System]]:
    """Return the clean files, the noisy recordings of a corpus, and what each run makes of them."""
    from bsbimamba.inference.files import enhance_files
    from bsbimamba.inference.trained import find
    from bsbimamba.network.cost import measure_cost
    from bsbimamba.training.logging import circumstances, read_history
    from bsbimamba.training.precision import Precision

    # All that can be wrong is found before hours may be spent on the first run.
    device = Precision(options.device, "off").device
    loaded = [find(run) for run in options.runs]
    listing = list_pairs(options.data, "test")
    clean, noisy = listing.clean, listing.noisy
    paired = {name: path for name, path in noisy.items() if name in clean}
    check_names(options.data, noisy, clean)
    systems = [System(NOISY, noisy)]
    for name, run, trained in zip(_names_of(options.runs), options.runs, loaded, strict=True):
        config, lines = read_history(run if run.is_dir() else run.parent)
        facts = circumstances(config) | _facts(trained, lines)
        systems.append(System(name, {}, facts, lines))
    # An unknown name is refused before hours are spent.
    choose_baseline(models_of(systems), options.baseline)
    for number, trained in enumerate(loaded, 1):
        network, system = trained.network.to(device), systems[number]
        facts = {**system.facts, **measure_cost(network, device)}
        unpaired = dict.fromkeys(clean.keys() - noisy, "there is no noisy file of that name")
        folder = options.out / "enhanced" / system.name
        files = unpaired | enhance_files(network, paired, folder, system.name)
        systems[number] = replace(system, files=files, facts=facts)
    return clean, systems


def _of_folders(options: argparse.Namespace) -> tuple[Mapping[str, Path], list[System]]:
    """Return the clean files, the noisy recordings if they are named, and other systems' files."""
    folders = {NOISY: options.noisy} if options.noisy else {}
    folders |= dict(zip(_names_of(options.enhanced), options.enhanced, strict=True))
    files = {name: find_recordings(folder) for name, folder in folders.items()}
    clean = find_recordings(options.clean)
    systems = [System(name, found) for name, found in files.items()]
    for name, found in files.items():
        check_names(folders[name], found, clean)
    choose_baseline(models_of(systems), options.baseline)
    return clean, systems


def check_names(place: Path, files: Mapping[str, Path], clean: Mapping[str, Path]) -> None:
    """Raise DataError if fewer than half of the files, or of the clean ones, have a partner."""
    both = files.keys() & clean.keys()
    if 2 * len(both) < min(len(files), len(clean)):
        theirs, ours = (some(sorted(x.keys() - both), 3) for x in (files, clean))
        raise DataError(
            f"{place}: of {len(files)} files, {len(both)} are named as one of the clean files is. "
            f"Others there: {theirs}. Clean: {ours}. Names must agree but for their extensions."
        )


def _facts(trained: Any, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is known of a `Trained` and its log; `family` is what seeds share."""
    from bsbimamba.network.net import name_of
    from bsbimamba.training.config import beside_recipe, method

    config = trained.config
    return {
        "model": config.name,
        "family": {
            **method(config),
            "network": name_of(type(trained.network)),
            "training data": trained.data,
            "checkpoint": trained.checkpoint,
            # Of the run, whichever of its checkpoints this is.
            "steps": lines[-1]["step"] if lines else trained.step,
        },
        "checkpoint": trained.checkpoint,
        "step": trained.step,
        "epochs": trained.epochs,
        "seed": config.seed,
        # Crops of two seconds, as public curves count them.
        "crops_per_step": config.data.batch_size * config.data.crop_seconds / 2,
        "batch": f"{config.data.batch_size} x {config.data.crop_seconds:g} s",
        "recipe": config.recipe,
        "beside_recipe": beside_recipe(config),
        "held_out": trained.held_out,
    }


def _names_of(paths: Sequence[Path]) -> list[str]:
    """Return a name for each system: its folder's, where needed with what is above and below.

    Raises:
        DataError: two would have the same.
    """
    paths = [path.resolve() for path in paths]
    folders = [path.parent if path.is_file() else path for path in paths]
    long = [
        "-".join([folder.parent.name, folder.name, *([path.stem] if path.is_file() else [])])
        for path, folder in zip(paths, folders, strict=True)
    ]
    for names in ([folder.name for folder in folders], long):
        if len({*names, NOISY, CLEAN}) == len(names) + 2:
            return names
    twice = next(name for name in long if long.count(name) > 1)
    raise DataError(f"two runs would be called {twice}: name each once, or rename a folder")


def _judge(rows: pd.DataFrame) -> int:
    """Return status 0, or 1 if a system's PESQ is not above that of the noisy files."""
    pesq = rows.pivot(index="utterance", columns="system", values="pesq_wb")
    pesq = pesq[pesq[NOISY].notna()]  # a system without a score for one of these has no gain
    gain = pesq.drop(columns=NOISY).sub(pesq[NOISY], axis=0).sum(skipna=False)
    if behind := list(gain.index[~(gain > 0)]):
        say(f"not above the noisy PESQ: {', '.join(behind)}")
    return int(bool(behind))
