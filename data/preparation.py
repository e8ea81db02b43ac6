"""A folder of VoiceBank-DEMAND, from nothing to prepared, or from where that stopped.

The published archives (`data.datashare`) are downloaded (`data.download`), and their recordings
converted to 16 kHz (`data.conversion`) into ROOT/clean_trainset_28spk_wav and so on. The logs of
noises and SNRs go to ROOT/logfiles. All else that this needs is in ROOT/.download.
ROOT/prepared.json (`data.prepared`) is written last.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from data.archives import content, members, open_archive
from data.conversion import Journal, convert
from data.datashare import PUBLISHED, Archive, Shelf, find_elsewhere
from data.download import Patience
from data.errors import DataError, FailedError
from data.files import remove_partials, replacing
from data.lock import Lock
from data.manifest import make
from data.noise_log import FOLDER as LOGS
from data.prepared import PREPARED, is_finished, unmatched, write_prepared
from data.text import some_lines
from data.workers import usable_cores

log = logging.getLogger("data")

STATE = ".download"
_RATE = 48_000  # of the recordings as published, in Hz
_LISTED = 20


def prepare(
    root: Path,
    elsewhere: Path | None = None,
    workers: int | None = None,
    remove_archives: bool = False,
    archives: Sequence[Archive] = PUBLISHED,
    patience: Patience | None = None,
) -> None:
    """Make the corpus in `root`, or what is missing of it.

    Args:
        root: a new or empty folder, or one that this function has made or begun.
        elsewhere: a folder that has some of the archives.
        workers: processes that convert; every usable core by default.
        remove_archives: remove what was downloaded in the end.
        archives: what is published: logs, and recordings as clean_NAME.zip and noisy_NAME.zip.
        patience: with the server.

    Raises:
        DataError: an archive is not what it should be, or `root` cannot be used.
        FailedError: the network or the disk is at fault; what is done is kept.
        OSError: a file cannot be read or written; the same holds.
    """
    if is_finished(root, archives):
        print(f"{root}: the corpus is there already")
        return
    if elsewhere:
        find_elsewhere(elsewhere, archives)
    _begin(root)
    lock = Lock(root / STATE, "name another folder with --root")
    try:
        preparation = _Preparation(root, archives, elsewhere, patience or Patience())
        preparation.check_space()
        preparation.get_all(workers or usable_cores())
        entries = preparation.finish(remove_archives)
    finally:
        lock.release()
    print(f"{root}: {', '.join(f'{count} {split} pairs' for split, count in entries.items())}")


class _Preparation:
    """One corpus folder on its way."""

    def __init__(
        self, root: Path, archives: Sequence[Archive], elsewhere: Path | None, patience: Patience
    ) -> None:
        self.root, self.archives = root, archives
        self.shelf = Shelf(root / STATE, elsewhere, patience)
        self.journals = {each.stem: self._journal(each) for each in archives if each.recordings}

    def _journal(self, archive: Archive) -> Journal:
        known = self.shelf.records.get(archive.name)
        path = self.root / STATE / f"{archive.stem}.jsonl"
        return Journal(path, self.root / archive.stem, known.sha256 if known else "")

    def check_space(self) -> None:
        """See that the disk has room for what is missing.

        Raises:
            FailedError: it has not.
        """
        needed = 0
        for archive in self.archives:
            journal = self.journals.get(archive.stem)
            if journal and not journal.complete:
                # At 16 kHz recordings take a third of 48 kHz, which the archives pack a little.
                made = sum(each.size for each in journal.done.values())
                needed += self.shelf.missing(archive) + max(0, archive.size // 2 - made)
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise FailedError(
                f"this needs about {needed / 1e9:.1f} GB in {self.root}, and {free / 1e9:.1f} GB "
                "are free. Make room, or name another folder with --root."
            )

    def get_all(self, workers: int) -> None:
        """Get and convert one archive after the other; then see that pairs are pairs.

        Raises:
            DataError: recordings cannot be used; they are listed.
        """
        bad: dict[str, dict[str, str]] = {stem: {} for stem in self.journals}
        for archive in self.archives:
            if not archive.recordings:
                self._copy_logs(archive)
            elif not self.journals[archive.stem].complete:
                path = self.shelf.obtain(archive)
                journal = self.journals[archive.stem] = self._journal(archive)
                bad[archive.stem] = convert(path, self.root / archive.stem, journal, workers)
        listed = {f"{stem}/{name}": why for stem in bad for name, why in bad[stem].items()}
        for clean in (stem for stem in self.journals if stem.startswith("clean_")):
            noisy = clean.replace("clean_", "noisy_", 1)
            sides = {stem: self.journals[stem].done for stem in (clean, noisy)}
            listed |= unmatched(sides, bad[clean].keys() | bad[noisy].keys())
        if listed:
            lines = [f"{name}: {reason}" for name, reason in sorted(listed.items())]
            raise DataError(
                f"{self.root}: {len(listed)} recordings cannot be used:\n"
                + some_lines(lines, _LISTED)
                + f"\nTheir archives are not as published: remove these ({self.root / STATE}, or "
                "what --from names), and run again."
            )

    def _copy_logs(self, archive: Archive) -> None:
        try:
            path = self.shelf.obtain(archive)
        except FailedError as error:
            if archive.required:
                raise
            log.warning("%s Going on without: noises and SNRs will not be known.", error)
            return
        (self.root / LOGS).mkdir(exist_ok=True)
        remove_partials(self.root / LOGS)
        with open_archive(path) as opened:
            for name, info in members(opened, ".txt").items():
                text = content(opened, info.filename)
                with replacing(self.root / LOGS / name) as temporary:
                    temporary.write_bytes(text)

    def finish(self, remove_archives: bool) -> dict[str, int]:
        """Write the manifest, and then what tells that all is done; entries by split."""
        made = {stem: journal.done for stem, journal in self.journals.items()}
        for stem, files in made.items():
            if others := sum(each.rate != _RATE for each in files.values()):
                log.warning("%s: %d recordings were at another rate than 48 kHz", stem, others)
        entries = make(self.root)
        write_prepared(self.root, self.shelf.records, made, entries)
        for archive in self.archives:
            if remove_archives and archive.recordings:
                self.shelf.discard(archive)
        return entries


def _begin(root: Path) -> None:
    """Make the folder, and see that it is ours and can be written to.

    Raises:
        DataError: it cannot, or holds something else.
    """
    try:
        there = os.listdir(root) if root.exists() else []
        strangers = sorted(name for name in there if not name.startswith("."))
        if strangers and STATE not in there and PREPARED not in there:
            raise DataError(
                f"{root} holds something else ({strangers[0]}); name a new or an empty folder "
                "with --root"
            )
        (root / STATE).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=root / STATE):
            pass
    except OSError as error:
        raise DataError(
            f"{root} cannot be written to ({error.strerror}); name another folder with --root"
        ) from None
