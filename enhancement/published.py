"""Models that are published: where they are, and by which checksums they are known again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.download import download
from data.utils import sha256_of
from enhancement.folder import SUMS, parse_sums


@dataclass(frozen=True)
class Published:
    """A model folder on a web server.

    Attributes:
        address: of the folder, without a slash at its end.
        sums: the SHA-256 of its list of checksums, and so of everything.
    """

    address: str
    sums: str


# Nothing is published yet. A model is added by its address and `sha256sum SHA256SUMS`.
PUBLISHED: Mapping[str, Published] = {}


def fetch(model: Published, folder: Path) -> None:
    """Download a model folder; its list of checksums comes into its place last.

    Raises:
        FailedError: it cannot be downloaded, or is not what was published.
        CheckpointError: what was published is no model folder.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / f"{SUMS}.new"
    _get(model, SUMS, listed, model.sums)
    for name, digest in parse_sums(listed.read_bytes(), listed).items():
        _get(model, name, folder / name, digest)
    listed.replace(folder / SUMS)


def _get(model: Published, name: str, target: Path, digest: str) -> None:
    if not (target.is_file() and sha256_of(target) == digest):
        download([f"{model.address}/{name}"], target, "sha256", digest)
