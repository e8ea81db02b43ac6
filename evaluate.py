"""Score trained runs, or any system's files, against clean speech; compare them.

    python evaluate.py RUN... --data ROOT --out DIR
    python evaluate.py --clean DIR --enhanced DIR... [--noisy DIR] --out DIR

Writes DIR/per_file.csv, DIR/summary.json, DIR/table.md, DIR/table.tex and DIR/report.html, and
prints the tables; of runs with a training log, also DIR/curve.png and DIR/curve.svg. A run's
enhanced files are kept in DIR/enhanced/RUN; run again, only what is new or has changed is enhanced
and scored. Status 0: done; 1: `--require-gain` or `--strict` is not met; 2: something is wrong with
the command line or the data, as a message on stderr says; 130: interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import data.openmp  # noqa: F401  (before torch)
from bandsplit.cost import measure_cost
from data.console import say, show
from data.errors import DataError
from data.files import is_within, remove_partials, write_text
from data.listing import find_recordings, list_pairs, pair_up
from data.workers import end_children, stop_by_signals
from enhancement.files import enhance_files
from evaluation.analysis import AnalysisError, analyse, choose_baseline
from evaluation.command import check_usage, parser
from evaluation.curves import write_curve
from evaluation.models import NOISY, System, models_of, names_of, without_gain
from evaluation.notes import failed
from evaluation.per_file import score_or_recall
from evaluation.report import REPORT, report
from evaluation.scoring import Task
from evaluation.summary import SUMMARY, summary
from evaluation.text import latex, markdown
from training.checkpoint import CheckpointError, name_of
from training.config import ConfigError, beside_recipe, method
from training.logging import circumstances, read_history
from training.precision import Precision
from training.trained import Trained, load_trained

log = logging.getLogger("evaluate")


@dataclass(frozen=True)
class Compared:
    """What is to be scored: each system's files by utterance, or why one is not there.

    facts, histories: of trained systems, by name; the latter are lines of their training's log.
    root: where the tables of test conditions are.
    """

    data: str
    root: Path
    clean: Mapping[str, Path]
    files: Mapping[str, Mapping[str, Path | str]]
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    histories: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    if sys.stderr is None:  # closed
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    command = parser()
    options = command.parse_args(arguments)
    check_usage(command, options)
    try:
        compared = _of_runs(options) if options.runs else _of_folders(options)
        systems = _score(compared, options)
        _write(compared, systems, options)
    except (DataError, CheckpointError, ConfigError, AnalysisError) as error:
        message, status = str(error), 2
    except OSError as error:
        where = error.filename2 or error.filename
        reason = error.strerror or str(error)
        message = f"{where}: {reason}" if where else f"the system refuses: {reason}"
        status = 2
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    else:
        return _judge(systems, options)
    end_children()
    say(f"evaluate.py: {message}")
    return status


def _of_runs(options: argparse.Namespace) -> Compared:
    """The noisy recordings of a corpus, and what each run makes of them."""
    # All that can be wrong is found before hours may be spent on the first run.
    device = Precision(options.device, "off").device
    loaded = [load_trained(run) for run in options.runs]
    folders = [run if run.is_dir() else run.parent for run in options.runs]
    names = names_of(options.runs)
    listing = list_pairs(options.data, "test")
    clean, noisy = listing.clean, listing.noisy
    if not clean.keys() & noisy.keys():
        raise DataError(f"{options.data}: no noisy file is named as a clean one is")
    kept = {name: read_history(folder) for name, folder in zip(names, folders, strict=True)}
    histories = {name: lines for name, (_, lines) in kept.items()}
    facts = {
        name: circumstances(kept[name][0]) | _facts(trained, histories[name])
        for name, trained in zip(names, loaded, strict=True)
    }
    _check_baseline(options, [NOISY, *names], facts)
    for folder in listing.folders:
        if is_within(options.out, folder) or is_within(folder, options.out / "enhanced"):
            raise DataError(f"--out {options.out} would put enhanced files among those of {folder}")
    _make_folder(options.out)

    files: dict[str, Mapping[str, Path | str]] = {NOISY: noisy}
    costs: dict[str, dict[str, Any]] = {}
    for name, trained in zip(names, loaded, strict=True):
        network = trained.network.to(device)
        kind = f"{type(network)} {dict(trained.config.model)}"
        if kind not in costs:  # seeds of one model cost the same
            cost = measure_cost(network, device)
            costs[kind] = {
                "parameters": cost.parameters,
                "macs_per_second": cost.macs_per_second,
                "real_time_factor": cost.real_time_factor,
                "peak_memory": cost.peak_memory,
                "measured_on": f"{cost.device}, {cost.seconds:g} s at once",
            }
        facts[name] |= costs[kind]
        folder = options.out / "enhanced" / name
        paired = {key: path for key, path in noisy.items() if key in clean}
        unpaired = dict.fromkeys(clean.keys() - noisy, "there is no noisy file of that name")
        files[name] = unpaired | enhance_files(network, paired, folder, trained.digest, name)
    return Compared(str(options.data), options.data, clean, files, facts, histories)


def _of_folders(options: argparse.Namespace) -> Compared:
    """The noisy recordings if they are named, and the files of any other systems."""
    folders = {NOISY: options.noisy} if options.noisy else {}
    folders |= dict(zip(names_of(options.enhanced), options.enhanced, strict=True))
    files = {name: find_recordings(folder) for name, folder in folders.items()}
    clean = pair_up(
        find_recordings(options.clean), {k: v for x in files.values() for k, v in x.items()}
    )
    for name, found in files.items():
        if not found.keys() & clean.keys():
            raise DataError(f"{folders[name]}: no file is named as one in {options.clean} is")
    _check_baseline(options, folders, {})
    _make_folder(options.out)
    return Compared(str(options.clean), options.clean, clean, files)


def _check_baseline(
    options: argparse.Namespace, names: Iterable[str], facts: Mapping[str, dict[str, Any]]
) -> None:
    """Before hours are spent: whether there will be a system of the name asked for."""
    choose_baseline(
        models_of([System(name, [], facts.get(name, {})) for name in names]), options.baseline
    )


def _facts(trained: Trained, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    config = trained.config
    return {
        "model": config.name,
        "family": {
            **method(config),
            "network": name_of(type(trained.network)),
            "training data": trained.data,
            "checkpoint": trained.checkpoint,
            # Of the run, whichever of its checkpoints this is.
            "steps": history[-1]["step"] if history else trained.step,
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


def _score(compared: Compared, options: argparse.Namespace) -> list[System]:
    """All systems at once, so that no process waits for the last file of one."""
    clean = compared.clean
    tasks = []
    for name, files in compared.files.items():
        # What has no clean file is noted for the system that has it, and counts for no other.
        for utterance in [*sorted(clean), *sorted(files.keys() - clean)]:
            found = files.get(utterance)
            path = found if isinstance(found, Path) else None
            reason = found if isinstance(found, str) else ""
            tasks.append(Task(name, utterance, clean.get(utterance), path, reason))
    rows = iter(score_or_recall(tasks, options.workers, options.out))
    return [
        System(
            name,
            list(islice(rows, len(clean))),
            compared.facts.get(name, {}),
            {key: path for key, path in files.items() if isinstance(path, Path)},
            list(islice(rows, len(files.keys() - clean))),
        )
        for name, files in compared.files.items()
    ]


def _write(compared: Compared, systems: list[System], options: argparse.Namespace) -> None:
    """Write and show everything but `per_file.csv`, which is there already."""
    analysis = analyse(systems, compared.data, compared.clean, compared.root, options.baseline)
    for text in analysis.warnings:
        log.warning("Warning: %s", text)
    table = markdown(analysis)
    write_text(options.out / SUMMARY, summary(analysis))
    write_text(options.out / "table.md", table)
    write_text(options.out / "table.tex", latex(analysis))
    write_curve(analysis, compared.histories, options.out)
    page = report(analysis, compared.histories, options.out, options.audio * 2**20)
    write_text(options.out / REPORT, page)
    show(table)


def _judge(systems: Sequence[System], options: argparse.Namespace) -> int:
    """Status 0, or 1 where what was demanded is not so."""
    status = 0
    if options.require_gain and (behind := without_gain(systems)):
        say(f"not above the noisy PESQ: {', '.join(behind)}")
        status = 1
    lacking = {system.name: len(failed(system)) for system in systems if failed(system)}
    if options.strict and lacking:
        counts = ", ".join(f"{name} ({count})" for name, count in lacking.items())
        say(f"files without all scores: {counts}")
        status = 1
    return status


def _make_folder(out: Path) -> None:
    """Make the output folder and see that it can be written to."""
    out.mkdir(parents=True, exist_ok=True)
    remove_partials(out, older_than=3600)
    with TemporaryFile(dir=out):
        pass


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
