"""Enhance recordings: files and folders, of any length, sampling rate and number of channels.

    python enhance.py INPUT... -o DIR [--model MODEL]

and in Python: `from bsbimamba import load; model = load("abl3"); y = model(x, sample_rate)`.

Each file is written to DIR under its own name, in its own format, rate, encoding and length; a
folder keeps its structure. Files that are in DIR already are left as they are, unless --overwrite
is given. Status 0: done; 1: some files failed, as messages on stderr say; 2: the command line, the
model or DIR is wrong; 130: interrupted.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from bsbimamba.data.audio import AudioError
from bsbimamba.inference.files import enhance_file, jobs_of
from bsbimamba.inference.model import load
from bsbimamba.inference.trained import DEFAULT
from bsbimamba.utils import carry_out, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser("enhance", description="Enhance files and folders.")
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="a file or a folder")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="DIR")
    known = "a run or model folder, a checkpoint, a shipped model (default: abl3), a hub id"
    parser.add_argument("-m", "--model", "-c", "--checkpoint", default=DEFAULT, help=known)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    there = "replace files that are in the output folder"
    parser.add_argument("--overwrite", action="store_true", help=there)
    options = parser.parse_args(arguments)
    return carry_out("enhance", partial(_run, options), "; the same command goes on from here")


def _run(options: argparse.Namespace) -> int:
    jobs = jobs_of(options.inputs, options.out)
    model = load(options.model, options.device)
    todo = {
        target: source
        for target, source in jobs.items()
        if options.overwrite or not target.exists()
    }
    failed = 0
    for target, source in tqdm(todo.items(), desc="enhancing", unit="file", disable=None):
        try:
            enhance_file(model, source, target)
        except (AudioError, OSError) as error:
            failed += 1
            with tqdm.external_write_mode():
                say(f"{source}: {error}")
    summary = f"{len(todo) - failed} of {len(jobs)} files enhanced into {options.out}"
    if kept := len(jobs) - len(todo):
        summary += f"; {kept} were there already (--overwrite replaces them)"
    say(summary + (f"; {failed} failed" if failed else ""))
    return 1 if failed else 0
