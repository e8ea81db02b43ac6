"""What somebody has sent: a recording within limits, or the reason why it is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data.audio import AudioError
from enhancement.files import KINDS, FileSource
from enhancement.windows import Block

MOST_BYTES = 200 << 20
MOST_MINUTES = 10
MOST_CHANNELS, MOST_RATE = 8, 192_000
# Each channel is enhanced by itself: what costs is their minutes together.
MOST_CHANNEL_MINUTES = 20
LIMITS = (
    f"Up to {MOST_MINUTES} minutes ({MOST_CHANNEL_MINUTES} of all channels together), "
    f"{MOST_CHANNELS} channels, {MOST_BYTES >> 20}\N{NO-BREAK SPACE}MB: {KINDS}."
)


class Upload(FileSource):
    """An uploaded file as a source of samples; its header is judged before anything is decoded.

    Raises:
        AudioError: it is no audio file that can be read, or too much of one.
    """

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path)
        except AudioError as error:
            raise AudioError(_explained(path, str(error))) from None
        if self.rate > MOST_RATE:
            raise AudioError(f"{self.rate} Hz: at most {MOST_RATE} Hz are taken here")
        if self.channels > MOST_CHANNELS:
            raise AudioError(f"{self.channels} channels: at most {MOST_CHANNELS} are taken here")
        self._check(self.frames)

    def blocks(self) -> Iterator[Block]:
        """The samples (c, n), as `FileSource.blocks`; more than a header tells are not decoded.

        Raises:
            AudioError: also where there are too many of them.
        """
        there = 0
        for block in super().blocks():
            there += block.shape[1]
            self._check(there)
            yield block

    @property
    def subtype(self) -> str:
        """The encoding of a wav file that holds what is made of it, as soundfile names it."""
        subtype = self.encoding[1]
        if subtype in ("FLOAT", "DOUBLE"):
            return "FLOAT"
        return "PCM_24" if subtype.endswith(("_24", "_32")) else "PCM_16"

    def _check(self, frames: int) -> None:
        minutes = frames / self.rate / 60
        if minutes > MOST_MINUTES:
            raise AudioError(
                f"too long: {minutes:.1f} minutes, where up to {MOST_MINUTES} are taken here"
            )
        if minutes * self.channels > MOST_CHANNEL_MINUTES:
            raise AudioError(
                f"too long: {self.channels} channels of {minutes:.1f} minutes, where up to "
                f"{MOST_CHANNEL_MINUTES} minutes of all channels together are taken here"
            )


def _explained(path: Path, reason: str) -> str:
    """A reason why a file cannot be opened, with what can be, and without where it lies."""
    reason = reason.replace(str(path), path.name)
    return f"{reason}. What can be read: {KINDS}" if reason.startswith("cannot be dec") else reason
