"""The command `bsbimamba COMMAND ...`, which is `python -m bsbimamba` too."""

import importlib
from argparse import REMAINDER, ArgumentParser

from bsbimamba.data.workers import stop_by_signals

COMMANDS = {
    "enhance": "bsbimamba.commands.enhance",
    "evaluate": "bsbimamba.commands.evaluate",
    "voicebank": "bsbimamba.data.voicebank",
    "export": "bsbimamba.inference.export",
}


def main() -> int:
    """Run the command line; return the exit status."""
    parser = ArgumentParser("bsbimamba", description="`bsbimamba COMMAND --help` explains each.")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("arguments", nargs=REMAINDER)
    options = parser.parse_args()
    stop_by_signals()
    try:
        command = importlib.import_module(COMMANDS[options.command])
    except ModuleNotFoundError as error:
        if str(error.name).startswith("bsbimamba"):
            raise
        what = f"{options.command} needs {error.name}"
        parser.error(f"{what}: pip install 'bs-bimamba[train]'")
    return int(command.main(options.arguments))


if __name__ == "__main__":
    raise SystemExit(main())
