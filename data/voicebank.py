"""VoiceBank-DEMAND from nothing to a folder that can be trained on.

    python -m data.voicebank [--root DIR] [--from DIR] [--workers N] [--remove-archives]

`data.preparation` says what it does and where. This is its command line.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from data.console import carry_out
from data.datashare import PUBLISHED, Archive
from data.download import Patience
from data.preparation import prepare
from data.workers import stop_by_signals, usable_cores

FOLDER = Path(__file__).resolve().parent / "voicebank_demand"


def _folder(text: str) -> Path:
    """A path, which an unset variable in quotes is not."""
    if not text:
        raise argparse.ArgumentTypeError("a path is expected, and this is empty")
    return Path(text)


def main(
    arguments: Sequence[str] | None = None,
    archives: Sequence[Archive] = PUBLISHED,
    patience: Patience | None = None,
) -> int:
    """The command line; returns the exit status.

    0: done. 1: the network or the disk failed. 2: wrong input. 130: interrupted. A message on
    stderr says what.
    """
    parser = argparse.ArgumentParser(
        prog="python -m data.voicebank",
        description="Download VoiceBank-DEMAND and convert it to 16 kHz. Run again after an "
        "interruption, and it goes on where it stopped.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--root", type=_folder, metavar="DIR", default=FOLDER, help=f"folder to make ({FOLDER})"
    )
    parser.add_argument(
        "--from", type=_folder, metavar="DIR", dest="elsewhere",
        help="a folder that has the archives, or some of them, already",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, metavar="N", default=usable_cores(), help="processes that convert"
    )
    parser.add_argument(
        "--remove-archives", action="store_true", help="remove what was downloaded in the end"
    )
    options = parser.parse_args(arguments)
    most = 4 * max(4, usable_cores())
    if not 1 <= options.workers <= most:
        parser.error(f"--workers is {options.workers}, expected 1 to {most}")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    def work() -> int:
        prepare(**vars(options), archives=archives, patience=patience)
        return 0

    again = "; the same command goes on from here"
    return carry_out("voicebank", work, again)


if __name__ == "__main__":
    stop_by_signals()
    sys.exit(main())
