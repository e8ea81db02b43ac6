"""A plan of training: which networks, with which seeds, for how many steps, all alike.

A TOML file:

    steps = 6000                  # of every run; the learning rate has then come down to 0
    warmup_steps = 100
    cooldown_steps = 3000         # the last ones, over which it falls
    arguments = ["--recipe", "plain"]   # of train.py, the same for all

    [[run]]
    name = "abl3-0"               # its folder, below the folder of runs
    folder = "abl3"               # whose train.py
    seed = 0
    # preset = "uniform31"        # a control
    # share = 0.5                 # of the plan's steps, where it is to have fewer, and
    # set = ["model.num_layers=2"]   # further settings

`like = "other.toml"` takes from a plan beside it whatever this one does not say itself.
Where data lie is not in it: that differs from machine to machine.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
_TYPES = {
    "steps": int,
    "warmup_steps": int,
    "cooldown_steps": int,
    "arguments": list,
    "run": list,
}
_ENDLESS = ("--epochs", "1000000")
_NAME = re.compile(r"\w[\w.-]*")  # of a folder, without others
FOLDERS = ("baseline", "abl1", "abl2", "abl3")


@dataclass(frozen=True)
class Planned:
    """One run of a plan.

    Attributes:
        name: of its folder.
        folder: of the project, whose `train.py` trains it.
        steps: in all.
        arguments: for `train.py`, but for where data and run lie.
    """

    name: str
    folder: str
    steps: int
    arguments: tuple[str, ...]

    @property
    def program(self) -> Path:
        return ROOT / self.folder / "train.py"


def read_plan(path: Path) -> list[Planned]:
    """The runs of a plan, in its order.

    Raises:
        DataError: the file is missing or is no plan; the text says what is wrong.
    """
    content = _load(path)
    if strange := content.keys() - _TYPES.keys():
        raise DataError(f"{path}: {', '.join(sorted(strange))}: nothing of a plan is called so")
    _expect(path, content, _TYPES)
    for name in ("steps", "cooldown_steps"):
        if content[name] < 1:
            raise DataError(f"{path}: {name} must be at least 1")
    runs = [_planned(path, content, each) for each in content["run"]]
    names = [run.name for run in runs]
    if len(set(names)) < len(names) or not names:
        raise DataError(f"{path}: every run needs a name of its own, and there must be one")
    return runs


def _load(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a file says, and the plans that it is like; above: those that are like this one."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{path} is not TOML: {error}") from None
    if (name := content.pop("like", None)) is None:
        return content
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise DataError(f'{path}: like names a plan beside it, as in "other.toml"')
    other = path.with_name(name)
    if other in (*above, path):
        raise DataError(f"{path}: like leads back to {other.name}")
    return {**_load(other, (*above, path)), **content}


def chosen(runs: Sequence[Planned], names: Sequence[str], path: Path) -> list[Planned]:
    """The named runs, all where none is named. Raises DataError for a name that is none."""
    known = {run.name: run for run in runs}
    for name in names:
        if name not in known:
            raise DataError(f"{path} has no run {name!r}; it has {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(runs)


def _planned(path: Path, plan: dict[str, Any], run: Any) -> Planned:
    if not isinstance(run, dict):
        raise DataError(f"{path}: a run is a table, [[run]]")
    _expect(path, run, {"name": str, "folder": str, "seed": int})
    optional = {"preset": str, "share": float, "set": list}
    for name in run.keys() - {"name", "folder", "seed"}:
        if name not in optional or type(run[name]) is not optional[name]:
            raise DataError(f"{path}: run {run['name']}: {name} = {run[name]!r} is not understood")
    name, folder = run["name"], run["folder"]
    if folder not in FOLDERS:
        raise DataError(f"{path}: run {name}: folder {folder!r} is not {', '.join(FOLDERS)}")
    if not _NAME.fullmatch(name):
        raise DataError(f"{path}: run {name!r}: a name is of letters, digits and . - _")
    steps, cooldown = (round(run.get("share", 1) * plan[n]) for n in ("steps", "cooldown_steps"))
    if not 0 < cooldown <= steps <= plan["steps"]:
        raise DataError(
            f"{path}: run {name}: {steps} steps and {cooldown} of cooldown, expected at least 1 of "
            "each, and a share of at most 1"
        )
    settings = [
        f"optim.warmup_steps={plan['warmup_steps']}",
        f"optim.cooldown=({steps - cooldown},{steps})",
        "optim.decay=1",  # nothing but these two decides the rate
        *run.get("set", ()),
    ]
    preset = ("--preset", run["preset"]) if "preset" in run else ()
    seed = ("--seed", str(run["seed"]))
    # The end of the cooldown ends a run, however small the corpus and so its epochs are.
    arguments = (*plan["arguments"], *_ENDLESS, *preset, *seed, "--set", *settings)
    if not all(isinstance(argument, str) for argument in arguments):
        raise DataError(f"{path}: arguments and set hold texts, in quotes")
    return Planned(name, folder, steps, arguments)


def _expect(path: Path, table: dict[str, Any], types: dict[str, type]) -> None:
    for name, kind in types.items():
        if type(table.get(name)) is not kind:
            raise DataError(f"{path}: {name} is missing or not of type {kind.__name__}")
