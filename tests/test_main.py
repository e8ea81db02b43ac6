"""The command `bsbimamba`."""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize(
    ("words", "missing", "status", "message"),
    [
        (["--help"], [], 0, ""),
        (["enhanse"], [], 2, "usage: bsbimamba"),
        (["enhance", "absent.wav", "-o", "x"], ["pebble", "pesq", "matplotlib"], 2, "absent.wav"),
        (["voicebank"], ["pandas"], 2, "voicebank needs pandas: pip install"),
        (["evaluate"], ["pandas"], 2, "evaluate needs pandas: pip install"),
    ],
)
def test_bsbimamba_runs_commands_and_names_what_is_missing(
    words: list[str], missing: list[str], status: int, message: str
) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({missing})); sys.argv[1:] = {words};"
    code += "from bsbimamba.__main__ import main; raise SystemExit(main())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr
