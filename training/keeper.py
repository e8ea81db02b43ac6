"""The checkpoints of one run: which are kept, which one is gone on from, and whether it may be."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from training.checkpoint import (
    BEFORE_FALL,
    BEST,
    DAMAGED,
    GOOD,
    LAST,
    PREVIOUS,
    CheckpointError,
    DamagedError,
    flush_folder,
    pack,
    read,
    understood,
    verify,
    write,
)
from training.config import Config
from training.settings import PLACES, diff, network_defaults, to_json
from training.trained import config_of, name_of

log = logging.getLogger("training")

# Settings by which a run may differ from the one that it continues. Data may have moved: what is
# compared is their fingerprint. What is kept for the backward pass changes no result.
# The length of a run is compared by the trainer, which knows what depends on it.
_FREE = ("run.", "model.use_checkpoint", "optim.epochs", "optim.steps", *PLACES)
# How a file system says that it has no hard links.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_WAY_OUT = "Name another folder with --run, or start anew with --fresh."
# What `restore` returns, by name, in these types.
_VALUES: dict[str, Any] = {"step": 0, "validated": 0, "best": 0.0, "logged": 0}


class Stateful(Protocol):
    """Anything with torch's two methods for its state."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Keeper:
    """Keeps the last two checkpoints of a run folder, the best, and the one to go back to.

    `last.pt` is there at every moment once it has been written. What it was before is
    `previous.pt`, which is gone on from where `last.pt` turns out damaged; the same steps are then
    done again, with the same result. `good.pt` is of the last validation, unless steps had to be
    left out just before it: where a run goes back to must not depend on when it happened to be
    saved or interrupted. `before_fall.pt` is of the step at which the learning rate begins to fall.

    Args:
        folder: the run folder.
        network, config: what is trained. data: the fingerprint of what it is trained on.
    """

    def __init__(self, folder: Path, network: type, config: Config, data: str) -> None:
        self.last, self.previous = folder / LAST, folder / PREVIOUS
        self.best, self.good = folder / BEST, folder / GOOD
        self.before_fall = folder / BEFORE_FALL
        # With every argument of the network: a default that changes must not change what is saved.
        self._config = replace(config, model={**network_defaults(network), **config.model})
        self._name, self._data = name_of(network), data

    def save(self, state: dict[str, Any], best: bool = False) -> None:
        """Write `last.pt` (or `best.pt`).

        Raises:
            CheckpointError: it cannot be written; what was there before is untouched.
        """
        content = pack(
            {**state, "network": self._name, "config": to_json(self._config), "data": self._data}
        )
        if best:
            write(self.best, content)
            return
        # Before `last.pt` changes, so that there is a whole one at every moment. Without links (on
        # a memory stick) `previous.pt` alone is there for the time of the writing.
        if self.last.is_file():
            _link_or_move(self.last, self.previous)
        write(self.last, content)

    def mark_good(self) -> None:
        """Keep what `last.pt` is now as what can be gone back to.

        Raises:
            CheckpointError: `good.pt` cannot be written; what it was before is untouched.
        """
        _copy(self.last, self.good)

    def mark_before_fall(self) -> None:
        """Keep what `last.pt` is now as what the run can be lengthened from. Raises as above."""
        _copy(self.last, self.before_fall)

    def rewind(self, finished: int) -> None:
        """Make `before_fall.pt` the last checkpoint again, and keep that of the shorter run.

        finished: the steps of the shorter run, which its last checkpoint is named by.

        Raises:
            CheckpointError: as above.
        """
        kept = self.last.with_name(f"last-{finished}.pt")
        _copy(self.last, kept)
        for path in (self.good, self.previous):  # they may be of the shorter run's fall
            _copy(self.before_fall, path)
        _copy(self.before_fall, self.last)
        log.info(
            "%s: a run of another length: it goes on from before the learning rate fell; what the "
            "run of %d steps came to is kept as %s",
            self.last.parent,
            finished,
            kept.name,
        )

    def load(self, good: bool = False) -> tuple[Path, bytes] | None:
        """The newest whole checkpoint, `last.pt` or the one before it; None where there is none.

        good: `good.pt` rather than these, if it is whole.

        Raises:
            CheckpointError: there are some, and none can be read.
        """
        damage: list[DamagedError] = []
        for path in (self.good, self.last, self.previous) if good else (self.last, self.previous):
            if not os.path.lexists(path):
                continue
            try:
                content = read(path)
                verify(content, path)
            except DamagedError as error:
                damage.append(error)
            else:
                return path, content
        if damage:
            listed = "\n".join(map(str, damage))
            raise DamagedError(f"{listed}\nPut back a copy, or start anew with --fresh.")
        return None

    def settle(self, path: Path) -> None:
        """The run goes on from `path`: make it `last.pt`, and put one that was damaged aside."""
        if path == self.last:
            return
        what = "is missing"
        if os.path.lexists(self.last):
            aside = self.last.with_name(DAMAGED)
            os.replace(self.last, aside)
            what = f"is damaged (now {aside.name})"
        log.warning("%s %s: going on from the checkpoint before it", self.last, what)
        _link_or_move(self.previous, self.last)

    def restore(
        self, path: Path, state: dict[str, Any], parts: Mapping[str, Stateful]
    ) -> dict[str, Any]:
        """Load a checkpoint's state into `parts` and return its plain values.

        Raises:
            CheckpointError: it is of another network, of other data, or its configuration differs
                in more than may change.
        """
        if state["network"] != self._name:
            raise CheckpointError(
                f"{path} is of the network {state['network']}, not {self._name}. {_WAY_OUT}"
            )
        settings = diff(config_of(state, path), self._config)
        changes = {k: v for k, v in settings.items() if not k.startswith(_FREE)}
        if changes:
            lines = [f"  {key}: {old!r} there, {new!r} now" for key, (old, new) in changes.items()]
            raise CheckpointError(
                "\n".join([f"{path} was made with other settings:", *lines])
                + "\nName another folder with --run, set them back, or start anew with --fresh."
            )
        if state["data"] != self._data:
            raise CheckpointError(
                f"{path} was trained on other files than are named now. {_WAY_OUT}"
            )
        with understood(path):
            for key, part in parts.items():
                part.load_state_dict(state[key])
            return {k: type(default)(state["values"][k]) for k, default in _VALUES.items()}


def _link(path: Path, target: Path) -> bool:
    """Give a file a second name that replaces what had it; False where there are no links.

    Raises:
        CheckpointError: it cannot be done for another reason.
    """
    half = target.with_name(f".{target.name}.partial")
    try:
        half.unlink(missing_ok=True)
        os.link(path, half)
        os.replace(half, target)
        half.unlink(missing_ok=True)  # two names of one file are left as they are
        flush_folder(target.parent)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise CheckpointError(f"{target} cannot be written: {error.strerror or error}") from None
    return True


def _copy(path: Path, target: Path) -> None:
    """Have `target` hold what `path` does now, by a link where there are links."""
    if not _link(path, target):
        write(target, read(path))


def _link_or_move(path: Path, target: Path) -> None:
    """`_link`, or, where there are no links, a new name for the old one."""
    if not _link(path, target):
        try:
            os.replace(path, target)
        except OSError as error:
            reason = error.strerror or error
            raise CheckpointError(f"{target} cannot be written: {reason}") from None
