"""Verify a corpus of pairs: is everything there, and is it what training and scoring expect?

    python -m bsbimamba.data.verify ROOT

Prints how many pairs there are, and which files are wrong and what to do about them. Status 0:
nothing is wrong; 1: something is; 2: there are no pairs; 130: interrupted. `evaluate.py` says
whether the noisy test files have the published scores.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import tyro
from tyro.conf import Positional

from bsbimamba.data.audio import opened, read
from bsbimamba.data.benchmark import NAME, TEST_PAIRS, TRAIN_PAIRS
from bsbimamba.data.corpus import SPLITS, Pair, check_pairs, has_split, list_pairs
from bsbimamba.data.levels import SAMPLE_RATE, lag_of
from bsbimamba.data.workers import in_threads, stop_by_signals
from bsbimamba.utils import DataError, carry_out, some

_LISTED = 5  # files, before "and N more"
# Pairs in the published folders.
_PUBLISHED = {"clean_trainset_28spk_wav": TRAIN_PAIRS, "clean_testset_wav": TEST_PAIRS}
_ENOUGH = 20 * SAMPLE_RATE  # samples of a pair that are looked at for its lag and level
# Samples from the first on may be clipped; a file with the second share of them is.
_FULL_SCALE, _CLIPPED = 32767 / 32768, 1e-4
_MOST_DB = 6  # between the clean file and what the noisy one holds of it
# What is wrong, and what to do about it.
_FRESH = "get the corpus again (python -m bsbimamba.data.voicebank), or remove both sides"
_UNUSABLE = "cannot be used: repair or remove them"
_FORMAT = "not of 16 kHz and one channel: convert them once, rather than at every reading"
_CLIPPING = "clipped: convert them again with some dB less gain, or remove both sides"
_LENGTH = f"longer or shorter than the clean file: {_FRESH}"
_LAG = f"late or early: shifted by a codec, or no mixture of the clean file; {_FRESH}"
_LEVEL = "of another level than the clean file: give the speech in both the same"
_SPEAKERS = "speakers in several splits: what is tested on must not be trained on"
_COUNT = f"of {NAME}'s splits incomplete: python -m bsbimamba.data.voicebank gets what is missing"


def verify(root: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Check every file of a corpus in threads; return facts, and files by their fault."""
    listings = {split: list_pairs(root, split) for split in SPLITS if has_split(root, split)}
    if not listings:
        raise DataError(f"{root}: no pairs there, as in train/clean and train/noisy below it")
    if "train" in listings and listings["train"] == listings.get("test"):
        del listings["train"]  # one folder or table serves for both
    facts, wrong = [], defaultdict(list)
    for split, listing in listings.items():
        count = len(listing.clean.keys() & listing.noisy.keys())
        facts.append(f"{split}: {count:,} pairs")
        total = _PUBLISHED.get(next(iter(listing.clean.values())).parent.name, count)
        if count != total:
            wrong[_COUNT].append(f"{split}: {count:,} of {total:,} pairs")
        pairs, bad = check_pairs(listing, split)
        wrong[_UNUSABLE] += [f"{path}: {reason}" for path, reason in sorted(bad.items())]
        for what, text in chain(*in_threads(look_at, pairs, f"looking at {split}")):
            wrong[what].append(text)
    for one, other in combinations(listings, 2):
        both = {*listings[one].speakers.values()} & {*listings[other].speakers.values()}
        wrong[_SPEAKERS] += [f"{speaker} in {one} and {other}" for speaker in sorted(both)]
    return facts, {what: files for what, files in wrong.items() if files}


def look_at(pair: Pair) -> list[tuple[str, str]]:
    """Return what is wrong with a pair, as (what, file and details)."""
    faults = []
    clean, noisy = read(pair.clean), read(pair.noisy)
    for path, x in ((pair.clean, clean), (pair.noisy, noisy)):
        with opened(path) as file:
            rate, channels, integers = file.samplerate, file.channels, "PCM" in file.subtype
        if (rate, channels) != (SAMPLE_RATE, 1):
            faults.append((_FORMAT, f"{path}: {rate} Hz, {channels} channels"))
        share = float(np.mean(np.abs(x) >= _FULL_SCALE))
        if integers and share > _CLIPPED:  # floats go beyond full scale unharmed
            faults.append((_CLIPPING, f"{path}: {share:.2%} of the samples"))
    if longer := len(noisy) - len(clean):
        faults.append((_LENGTH, f"{pair.noisy}: {longer:+d} samples"))
    lag, likeness, gain = lag_of(clean[:_ENOUGH], noisy[:_ENOUGH])
    if lag or likeness < 0:
        faults.append((_LAG, f"{pair.noisy}: {lag:+d} samples{', inverted' * (likeness < 0)}"))
    elif abs(level := 20 * np.log10(gain)) > _MOST_DB:
        faults.append((_LEVEL, f"{pair.noisy}: {level:+.1f} dB"))
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""

    def work(root: Positional[Path]) -> int:
        """Verify a corpus of pairs."""
        facts, wrong = verify(root)
        lines = facts if wrong else [*facts, "nothing is wrong"]
        for what, files in wrong.items():
            lines += [f"{len(files)} {what}", "  " + some(files, _LISTED, "\n  ")]
        print("\n".join(lines))
        return int(bool(wrong))

    prog = "python -m bsbimamba.data.verify"
    return carry_out("verify", lambda: tyro.cli(work, prog=prog, args=arguments))


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
