"""Verifies a corpus of pairs: is everything there, and is it what training and scoring take it for?

    python -m data.verify ROOT [--json FILE] [--no-scores] [--workers N]

Prints a table of what was checked, and what to do about what is wrong. The last word on
VoiceBank-DEMAND's test set have the scores of its noisy files, which every paper states. Status
0: nothing is wrong (a part of VoiceBank-DEMAND is right, too); 1: something is; 2: there is nothing
to be looked at; 130: interrupted. Free of torch.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from data.checks import look_at
from data.console import carry_out, show
from data.corpus_checks import check_corpus, check_scores
from data.errors import DataError
from data.files import write_text
from data.findings import OK, PART, WRONG, Finding, Split
from data.listing import in_folders, list_pairs, splits_in
from data.noisy_scores import noisy_scores
from data.split_checks import check_split
from data.text import some_lines
from data.workers import mapped, stop_by_signals, usable_cores

T = TypeVar("T")
_LISTED = 5  # files, before "and N more"; --json has all
_AT_ONCE = 4  # pairs that a process is given


def verify(root: Path, workers: int, scores: bool = True) -> list[Finding]:
    """Look at every file of a corpus, in `workers` processes.

    scores: whether to score the noisy test files, if nothing else is wrong with them.

    Raises:
        DataError: there are no pairs, or a worker process died.
    """
    splits = {}
    for name in splits_in(root):
        # The disk is looked at, not what manifests say of it: that is compared with it.
        listing = in_folders(root, name) or list_pairs(root, name)
        paired = sorted(listing.clean.keys() & listing.noisy.keys())
        paths = [(listing.clean[key], listing.noisy[key]) for key in paired]
        looked = _in_processes(look_at, paths, workers, f"looking at {name}")
        splits[name] = Split(name, listing, dict(zip(paired, looked, strict=True)))
    if not splits:
        raise DataError(
            f"{root}: no pairs there. Expected folders such as clean_trainset_28spk_wav and "
            "noisy_trainset_28spk_wav, train/clean and train/noisy, or clean and noisy"
        )
    findings = [each for split in splits.values() for each in check_split(root, split, splits)]
    findings += check_corpus(root, splits)
    test = splits.get("test")
    if test and test.is_benchmark and scores:
        if any(f.verdict == WRONG for f in findings if f.split == "test"):
            findings.append(
                Finding("test", "noisy scores", PART, "not scored, as something is wrong above")
            )
        else:
            paths = [test.paths(key) for key in test.looked]
            found = _in_processes(noisy_scores, paths, workers, "scoring noisy files")
            findings.append(check_scores(test, found))
    return findings


def _in_processes(
    function: Callable[[tuple[Path, Path]], T],
    pairs: Sequence[tuple[Path, Path]],
    workers: int,
    what: str,
) -> list[T]:
    try:
        with mapped(function, pairs, workers, _AT_ONCE) as found:
            return list(tqdm(found, total=len(pairs), desc=what, unit="pair", disable=None))
    except BrokenProcessPool:
        raise DataError("a process was killed (out of memory?); try --workers 1") from None


def table(findings: Sequence[Finding]) -> str:
    """What was found, a line each; then what is wrong, with its files and what to do."""
    rows = [("split", "check", "verdict", "found")]
    rows += [(f.split, f.check, f.verdict, f.text) for f in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    for finding in findings:
        if not finding.remedy:
            continue
        lines += ["", f"{finding.check} of {finding.split}: {finding.text}"]
        if finding.files:
            lines.append(some_lines(finding.files, _LISTED))
        lines.append(f"  What to do: {finding.remedy}")
    return "\n".join(lines)


def verdict(findings: Sequence[Finding]) -> str:
    """The worst of all verdicts."""
    verdicts = {finding.verdict for finding in findings}
    return next(each for each in (WRONG, PART, OK) if each in verdicts)


def to_json(root: Path, findings: Sequence[Finding]) -> str:
    """For programs: everything, all files included."""
    content: Mapping[str, object] = {
        "root": str(root),
        "verdict": verdict(findings),
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(content, indent=1) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data.verify",
        description="Verify a corpus of pairs, VoiceBank-DEMAND above all.",
        allow_abbrev=False,
    )
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--no-scores", action="store_true", help="do not score noisy test files")
    parser.add_argument("--workers", type=int, metavar="N", default=usable_cores())
    options = parser.parse_args(arguments)
    if not 1 <= options.workers <= 256:
        parser.error(f"--workers is {options.workers}, expected 1 to 256")

    def work() -> int:
        findings = verify(options.root, options.workers, not options.no_scores)
        show(table(findings) + "\n")
        if options.json:
            try:
                write_text(options.json, to_json(options.root, findings))
            except OSError as error:
                raise DataError(f"{options.json} cannot be written ({error.strerror})") from None
        return 1 if verdict(findings) == WRONG else 0

    return carry_out("verify", work)


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
