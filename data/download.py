"""Downloads over HTTP that go on where they broke off.

What has arrived of NAME lies beside its place as NAME.part, and NAME.part.json says what it is a
part of. It takes its place only whole and verified. The same call again, in another process too,
asks the server for the rest (a range request of RFC 9110), on condition that the file there is
still the same; a server that does not know ranges is asked for all of it.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from data.errors import FailedError
from data.files import DAMAGE, write_text
from data.web import AgainError, Answer, RefusedError, ask

log = logging.getLogger("data")

_CHUNK = 1 << 18
_LONGEST_RETRY_AFTER = 600.0  # seconds


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        tries: in which nothing more arrives, before an address is given up.
        timeout: seconds in which a server that is connected to has to send something.
        pause: seconds before the second try; twice as many before each further one.
        longest: seconds of such a pause at most.
        sleep: what pauses.
    """

    tries: int = 6
    timeout: float = 60.0
    pause: float = 1.0
    longest: float = 60.0
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Origin:
    """Where a file comes from. etag, modified: as the server says, or ""; size: in bytes."""

    address: str
    etag: str = ""
    modified: str = ""
    size: int | None = None

    @property
    def validator(self) -> str:
        """What tells this version of the file from another one; "" where nothing does."""
        return self.modified if self.etag.startswith("W/") else self.etag or self.modified


@dataclass(frozen=True)
class Wanted:
    """What is to be downloaded.

    Attributes:
        target: the file's place, in a folder that is there.
        verify: says what is wrong with a whole file, or "".
        exact: whether `verify` knows the very content, so that no mixture of two files passes.
        start: the bytes that the file begins with.
        size: in bytes, where it is known.
        most: bytes, beyond which it cannot be the right file.
        otherwise: what to do where no server has it, beside trying again.
    """

    target: Path
    verify: Callable[[Path], str]
    exact: bool
    start: bytes = b""
    size: int | None = None
    most: int = 1 << 40
    otherwise: str = "get it by other means and name its folder with --from"

    @property
    def part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")


def download(wanted: Wanted, addresses: Sequence[str], patience: Patience) -> Origin:
    """Get a file from the first of its addresses that has it.

    Raises:
        FailedError: none has it, or there is no room for it. What has arrived is kept.
        OSError: it cannot be written.
    """
    reasons = []
    for address in addresses:
        try:
            return _Transfer(wanted, address, patience).run()
        except RefusedError as refusal:
            reasons.append(f"{address}: {refusal}")
            if address != addresses[-1]:
                log.info("%s; now from another address", reasons[-1])
    raise FailedError(
        f"{wanted.target.name} cannot be downloaded ({'; '.join(reasons)}). Run again later, which "
        f"goes on from what has arrived, or {wanted.otherwise}."
    )


class _Transfer:
    """One file from one address, in as many pieces as it takes."""

    def __init__(self, wanted: Wanted, address: str, patience: Patience) -> None:
        self.wanted, self.address, self.patience = wanted, address, patience
        self.part = wanted.part
        self.note = self.part.with_name(f"{self.part.name}.json")
        self._ranges = True  # whether the server is still believed to know ranges

    def run(self) -> Origin:
        failures, most = 0, self._arrived()
        while True:
            try:
                origin, resumed = self._attempt()
                if not (wrong := self.wanted.verify(self.part)):
                    break
                self._discard()
                if not resumed:
                    raise RefusedError(f"what comes from there {wrong}")
                raise AgainError(f"what has been put together of several pieces {wrong}")
            except AgainError as reason:
                arrived = self._arrived()
                failures = 1 if arrived > most else failures + 1
                most = max(most, arrived)
                if failures >= self.patience.tries:
                    raise RefusedError(f"{reason} ({failures} times)") from None
                self._pause(failures, reason)
        self.part.replace(self.wanted.target)
        self.note.unlink(missing_ok=True)
        return origin

    def _pause(self, failures: int, reason: AgainError) -> None:
        pause = min(self.patience.longest, self.patience.pause * 2 ** (failures - 1))
        # Clients that a server has lost at one moment must not all be back at one moment.
        pause = max(pause * random.uniform(0.5, 1), min(reason.after, _LONGEST_RETRY_AFTER))
        log.info("%s: %s; again in %.0f s", self.wanted.target.name, reason, pause)
        self.patience.sleep(pause)

    def _arrived(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _resumable(self) -> tuple[int, Origin]:
        """How much of the file is there to be gone on from, and what it is a part of."""
        unknown = Origin(self.address)
        try:
            origin = Origin(**json.loads(self.note.read_text("utf-8")))
        except DAMAGE:
            origin = unknown
        if origin.address != self.address:
            origin = unknown  # another server's validators say nothing to this one
        if not self._ranges or not (origin.validator or self.wanted.exact):
            return 0, unknown
        return self._arrived(), origin

    def _attempt(self) -> tuple[Origin, bool]:
        """Get the rest of the file: what it is, and whether something of it was there before."""
        first, known = self._resumable()
        with ask(self.address, self.patience.timeout, first, known.validator) as answer:
            if answer.status == 416:
                if answer.size == first:
                    return known, True  # all of it had arrived
                self._discard()
                raise AgainError(f"the server has nothing after {first} bytes")
            if first and answer.status == 200:
                log.info("%s: the server sends it from the start", self.wanted.target.name)
                first = 0
            if answer.begin != first or (first and answer.size != (known.size or answer.size)):
                self._ranges = False
                raise AgainError("the server sends another part than asked for")
            origin = Origin(self.address, answer.etag, answer.modified, answer.size)
            if first and known.validator and origin.validator not in ("", known.validator):
                self._discard()
                raise AgainError("the file there has changed meanwhile")
            self._check_size(origin.size, first)
            begin = b"" if first else self._beginning(answer)
            if not first:
                self._discard()  # not before there is something better
            if origin != known:
                write_text(self.note, json.dumps(asdict(origin)))
            self._receive(answer, begin, first, origin.size)
        return origin, first > 0

    def _beginning(self, answer: Answer) -> bytes:
        """The first bytes, if they are those of the right kind of file."""
        begin = answer.read(len(self.wanted.start))
        if begin != self.wanted.start[: len(begin)]:
            raise RefusedError(
                f"the server answers with another kind of file ({answer.kind}), as networks do "
                "that want one to sign in first"
            )
        return begin

    def _check_size(self, size: int | None, first: int) -> None:
        if size is None:
            return
        if size != (self.wanted.size or size) or size > self.wanted.most:
            expected = self.wanted.size or f"at most {self.wanted.most}"
            raise RefusedError(f"has {size} bytes, not {expected}")
        free = shutil.disk_usage(self.part.parent).free
        if size - first > free:
            raise FailedError(
                f"{self.part.parent} has {free / 1e9:.2f} GB free, and {self.wanted.target.name} "
                f"takes {(size - first) / 1e9:.2f} GB more. Make room and run again."
            )

    def _receive(self, answer: Answer, begin: bytes, first: int, size: int | None) -> None:
        arrived = first + len(begin)
        bar = tqdm(
            total=size, initial=arrived, desc=self.wanted.target.name, unit="B", unit_scale=True,
            disable=None,
        )  # fmt: skip
        with bar, self.part.open("ab") as file:
            file.write(begin)
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                arrived += len(chunk)
                bar.update(len(chunk))
                if arrived > self.wanted.most:
                    self._discard()
                    raise RefusedError(f"sends more than {self.wanted.most} bytes")
        if size is not None and arrived < size:
            raise AgainError(f"the connection ended after {arrived} of {size} bytes")
