"""Bundles, and a corpus to make them of, for their tests."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

from recordings import put

from data.bundle import bundle, main
from data.packed import FOLDER
from data.shares import Item
from data.unbundle import SUMS

MIB = 0.2  # a part; a second of these recordings takes 32 kB


def put_corpus(root: Path) -> Path:
    """24 recordings of six speakers, nine noises in three folders, and what describes them."""
    clean, noise = root / "clean", root / "noise"
    rows = ["file,speaker"]
    for n in range(24):
        name = f"set {n % 2}/u{n:02}" + (".wav", ".flac", ".opus", ".wav")[n % 4]
        put(clean / name, 0.4 + n % 3 / 10, n)
        rows.append(f"{name},s{n % 6}")
    for n in range(9):
        put(noise / "abc"[n % 3] / f"lärm {n}.wav", 0.6, 100 + n)
    texts = {
        clean / "speakers.csv": "\n".join(rows),
        clean / "LICENCE": "public domain",
        noise / "a" / "sources.txt": "recorded",
        clean / ".hidden": "",
        clean / FOLDER / "recordings-0.json": "{}",
        clean / "manifests" / "recordings.jsonl": "",
    }
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    return root


def make(corpus: Path, out: Path, mib: float = MIB, minutes: float = 0.1) -> list[Path]:
    """Bundle a corpus; the parts of it, in their order."""
    bundle(corpus / "clean", corpus / "noise", out, mib, minutes)
    return sorted(out.glob("part-*.tar"), key=lambda path: int(path.stem[5:]))


def carried(folder: Path) -> dict[str, bytes]:
    """What is to arrive of a corpus: contents by name."""
    found = {}
    for path in folder.rglob("*"):
        inner = path.relative_to(folder)
        made = not {FOLDER, "manifests"}.isdisjoint(inner.parts)
        if path.is_file() and not path.name.startswith(".") and not made:
            found[inner.as_posix()] = path.read_bytes()
    return found


def content(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        return {each.name: opened.extractfile(each).read() for each in opened}  # type: ignore[union-attr]


def unpacked(parts: list[Path], into: Path) -> int:
    return main(["--unpack", *map(str, parts), "--into", str(into)])


def sums_of(folder: Path) -> None:
    """Sums that say what archives are, whatever they hold."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*.tar"))
    ]
    (folder / SUMS).write_text("".join(lines), "utf-8")


def items(side: str, sizes: list[int], kinds: int = 4) -> list[Item]:
    return [
        Item(f"{side}/{n}.wav", Path(f"{n}.wav"), size, size / 1000, f"k{n % kinds}")
        for n, size in enumerate(sizes)
    ]
