"""The command `bsbimamba COMMAND ...`, which is `python -m bsbimamba` too."""

import importlib
import sys

from bsbimamba.data.workers import stop_by_signals

COMMANDS = {
    "enhance": "bsbimamba.commands.enhance",
    "evaluate": "bsbimamba.commands.evaluate",
    "voicebank": "bsbimamba.data.voicebank",
    "export": "bsbimamba.inference.export",
}
USAGE = f"""usage: bsbimamba {{{",".join(COMMANDS)}}} ...

  enhance     recordings: files and folders
  evaluate    score trained networks, or any system's files, and compare them
  voicebank   download VoiceBank-DEMAND and convert it to 16 kHz
  export      write a trained network as safetensors and ONNX

`bsbimamba COMMAND --help` explains each."""


def main() -> int:
    """Run the command line; return the exit status, 2 where there is no such command."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        is_help = name in ("-h", "--help")
        print(USAGE, file=sys.stdout if is_help else sys.stderr)
        return 0 if is_help else 2
    stop_by_signals()
    try:
        command = importlib.import_module(COMMANDS[name])
    except ModuleNotFoundError as error:
        extra = {"evaluate": "train", "export": "export"}.get(name)
        if extra is None or (error.name or "").startswith("bsbimamba"):
            raise
        print(
            f"bsbimamba {name} needs {error.name}: pip install 'bs-bimamba[{extra}]'",
            file=sys.stderr,
        )
        return 2
    return int(command.main(sys.argv[2:]))


if __name__ == "__main__":
    raise SystemExit(main())
