"""Uploads and results: a folder of their own, out of which everything goes after a while."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from pathlib import Path

from page.work import Result

KEPT_MINUTES = 60
MOST_BYTES = 4_000_000_000  # of everything together
_SWEPT_SECONDS = 60.0


class Store:
    """A temporary folder, which goes with the object that made it (`close`).

    Attributes:
        folder: it. Everything in it that is older than `KEPT_MINUTES` is removed.
        results: what can be asked for by an address that cannot be guessed.
        closed: whether everything in it has been removed; what is written then comes to nothing.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bs-bimamba-page-")).resolve()
        self.uploads = self.folder / "uploads"
        self.uploads.mkdir()
        self.results: dict[str, tuple[Path, str]] = {}
        self.closed = False

    def place(self) -> Path:
        """A folder for results, not made yet."""
        return self.folder / f"result-{secrets.token_hex(8)}"

    def address(self, path: Path, name: str = "") -> str:
        """Under which a file can be asked for. name: what a download of it is called."""
        key = secrets.token_urlsafe(16)
        self.results[key] = (path, name)
        return f"/results/{key}"

    def full(self) -> bool:
        """Whether there is no room for another upload."""
        used = 0
        for path in self.folder.rglob("*"):
            try:
                used += path.stat().st_size
            except OSError:  # it has just been removed
                continue
        return used > MOST_BYTES

    def sweep(self, older_than: float = 60 * KEPT_MINUTES) -> None:
        """Remove what has not been touched for so many seconds."""
        before = time.time() - older_than
        for path in sorted(self.folder.rglob("*"), reverse=True):
            try:
                if path == self.uploads or path.stat().st_mtime > before:
                    continue
                path.rmdir() if path.is_dir() else path.unlink()
            except OSError:  # gone already, or a folder with something in it
                continue
        for key, (path, _) in list(self.results.items()):
            if not path.exists():
                self.results.pop(key, None)

    def sweep_for_ever(self) -> None:
        """In a thread of its own, beside whatever else is done."""

        def sweeping() -> None:
            while True:
                time.sleep(_SWEPT_SECONDS)
                self.sweep()

        threading.Thread(target=sweeping, daemon=True).start()

    def close(self) -> None:
        """Remove everything, under the hands of whoever still writes there."""
        self.closed = True
        shutil.rmtree(self.folder, ignore_errors=True)


def names_of(result: Result) -> dict[Path, str]:
    """What the files of a result are called when they are downloaded."""
    stem = result.upload.path.stem[:80] or "recording"
    names = {result.noisy.sound: f"{stem} noisy.wav"}
    for each in result.outcomes:
        names[each.enhanced.sound] = f"{stem} enhanced by {each.label}.wav"
        names[each.removed.sound] = f"{stem} removed by {each.label}.wav"
    return {path: name.replace("/", "_").replace("\\", "_") for path, name in names.items()}
