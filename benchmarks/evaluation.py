"""Scoring files by as many processes as there are cores, against one process, in turn.

`python -m benchmarks.evaluation`: 824 files, as many as VoiceBank-DEMAND's test set has, from the
embedded corpus' test pairs in turn, or from `--clean DIR --enhanced DIR`. All metrics. The start of
the processes is part of the time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import cycle, islice
from pathlib import Path

from data import synthesise
from data.audio import read
from data.corpus import find_recordings, list_pairs
from data.workers import usable_cores
from evaluation.metrics import METRICS, score
from evaluation.scoring import Task, score_files

_CORPUS = Path(__file__).resolve().parents[1] / "data" / "synthetic"
_TARGET = 0.9  # of the number of cores


def main() -> None:
    options = _options()
    if options.clean:
        clean, enhanced = find_recordings(options.clean), find_recordings(options.enhanced)
    else:
        listing = list_pairs(synthesise.ensure(_CORPUS), "test")
        clean, enhanced = dict(listing.clean), dict(listing.noisy)
    names = list(islice(cycle(sorted(clean.keys() & enhanced.keys())), options.files))
    tasks = [Task("noisy", name, clean[name], enhanced[name]) for name in names]
    cores = usable_cores()
    _show_each(tasks[0])
    times: dict[int, list[float]] = {1: [], cores: []}
    ratios = []
    for _ in range(options.rounds):
        pair = {workers: _time(tasks, workers) for workers in times}
        for workers, seconds in pair.items():
            times[workers].append(seconds)
        ratios.append(pair[1] / pair[cores])
    for workers, taken in times.items():
        median = statistics.median(taken)
        print(f"{workers:3} processes: {median:7.1f} s, {len(tasks) / median:6.1f} files a second")
    ratio = statistics.median(ratios)
    print(
        f"{ratio:.2f} times as fast on {cores} cores, {ratio / cores:.2f} of their number (median "
        f"of {len(ratios)}, {min(ratios) / cores:.2f} to {max(ratios) / cores:.2f}); "
        f"target {_TARGET}"
    )


def _time(tasks: list[Task], workers: int) -> float:
    begin = time.perf_counter()
    rows = score_files(tasks, workers)
    seconds = time.perf_counter() - begin
    lacking = [row for row in rows if len(row.scores) < len(METRICS)]
    if lacking:
        raise SystemExit(f"{lacking[0].utterance}: {lacking[0].note}")
    return seconds


def _show_each(task: Task) -> None:
    """What each metric of one file takes by itself; several share PESQ, LLR and WSS."""
    if task.clean is None or task.enhanced is None:
        return
    clean, enhanced = read(task.clean), read(task.enhanced)
    each = {}
    for name in (*METRICS, *METRICS):  # the first round warms up
        begin = time.perf_counter()
        score(clean, enhanced, (name,))
        each[name] = time.perf_counter() - begin
    listed = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in each.items())
    print(f"ms for {len(clean) / 16000:.1f} s of audio: {listed}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--clean", type=Path, metavar="DIR")
    parser.add_argument("--enhanced", type=Path, metavar="DIR")
    parser.add_argument("--files", type=int, default=824)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if bool(options.clean) != bool(options.enhanced):
        parser.error("--clean and --enhanced go together")
    return options


if __name__ == "__main__":
    main()
