"""A page to try trained networks on: upload or record, hear, see, download.

    python app.py [MODEL...]

MODEL: run folders, checkpoints, model folders or names; by default all that are here. The page is
for this machine alone, unless --host says otherwise, and needs no network. It needs Gradio:
pip install -r requirements-demo.txt. Status 0: it was ended; 1: a model cannot be downloaded now;
2: something is wrong with the command line, as a message on stderr says.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from functools import partial

import data.openmp  # noqa: F401  (before torch)
from data.utils import DataError, carry_out
from page.models import offered, warm_up
from page.serve import bound, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    return carry_out("app.py", partial(_run, options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="app.py", description="A page to try trained networks on.", allow_abbrev=False
    )
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="a run folder, a checkpoint, a model folder or a model's name; by default all in "
        "models/ and runs/",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="whom to listen to: by default this machine alone"
    )
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    return parser


def _run(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("gradio") is None:
        raise DataError("the page needs Gradio: pip install -r requirements-demo.txt")
    with bound(options.host, options.port) as listening:
        models = offered(options.models, options.device)
        warm_up(models)
        serve(models, options.host, listening)
    return 0


if __name__ == "__main__":
    sys.exit(main())
