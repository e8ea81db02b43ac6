"""The command line of `evaluate.py`: its options, and how it speaks."""

from __future__ import annotations

import argparse
from pathlib import Path

from data.workers import usable_cores


def parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        description="Score trained runs, or any system's files, and compare them.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="run folders, checkpoints"
    )
    parser.add_argument("--data", type=Path, metavar="ROOT", help="a corpus with test pairs")
    parser.add_argument("--clean", type=Path, metavar="DIR")
    parser.add_argument(
        "--enhanced", type=Path, metavar="DIR", nargs="+", default=[], help="named as in --clean"
    )
    parser.add_argument("--noisy", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True)
    parser.add_argument("--workers", type=int, metavar="N", default=usable_cores())
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--baseline", metavar="NAME", help="the system that the others are compared with"
    )
    parser.add_argument(
        "--audio",
        type=float,
        metavar="MB",
        default=16.0,
        help="of sound in report.html, before the rest is played from its files",
    )
    parser.add_argument(
        "--require-gain", action="store_true", help="status 1 unless every PESQ is above the noisy"
    )
    parser.add_argument("--strict", action="store_true", help="status 1 if any file lacks a score")
    return parser


def check_usage(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a message where options do not go together."""
    if bool(options.runs) == bool(options.enhanced):
        parser.error("name runs and --data, or --clean and --enhanced")
    if options.runs and not options.data:
        parser.error("runs are scored on a corpus: --data ROOT")
    if options.runs and (options.clean or options.noisy):
        parser.error("--clean and --noisy go with --enhanced; of runs, --data names both")
    if options.enhanced and not options.clean:
        parser.error("--enhanced needs --clean")
    if options.enhanced and options.data:
        parser.error("--data goes with runs; --enhanced is scored against --clean")
    if options.require_gain and not (options.runs or options.noisy):
        parser.error("--require-gain needs --noisy")
    most = 4 * max(4, usable_cores())
    if not 1 <= options.workers <= most:  # each takes some 150 MB
        parser.error(f"--workers is {options.workers}, expected 1 to {most}")
    if not 0 <= options.audio <= 2000:
        parser.error(f"--audio is {options.audio:g}, expected 0 to 2000 MB")
