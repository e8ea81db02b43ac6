"""Downloads over HTTP that go on where they broke off."""

from __future__ import annotations

import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from data.utils import FailedError, checksum_of

log = logging.getLogger("data")

TRIES, PAUSE = 6, 1.0  # without progress; s before the second try, twice as many before the next
_TIMEOUT = 60.0  # s in which a server has to send something
_BLOCK = 1 << 18
_NEVER = (401, 403, 404, 410)  # of these answers, another try brings the same
_NETWORK = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def download(addresses: Sequence[str], target: Path, algorithm: str, checksum: str) -> None:
    """Download a file from the first of its addresses that has it, and verify it.

    What has arrived lies beside it as NAME.part; the next call goes on from there.

    Args:
        addresses: of http or https.
        target: the file, in a folder that is there. It is written whole or not at all.
        algorithm: of `hashlib`.
        checksum: of the whole file, hexadecimal.

    Raises:
        FailedError: no address gives a file of this checksum.
        OSError: the file cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    reasons = []
    for address in addresses:
        reason = _fetch(address, part)
        if not reason and checksum_of(part, algorithm) == checksum:
            part.replace(target)
            return
        if not reason:
            part.unlink()
            reason = "is not what was published (another checksum)"
        reasons.append(f"{address}: {reason}")
        log.info("%s", reasons[-1])
    raise FailedError(
        f"{target.name} cannot be downloaded ({'; '.join(reasons)}). Run again later, which goes "
        f"on from what has arrived, or put the file into {target.parent} yourself."
    )


def _fetch(address: str, part: Path) -> str:
    """Get the rest of a file, in as many requests as it takes; return why that failed, or ""."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive(address, part, before)
        except _NETWORK as error:
            after = part.stat().st_size if part.exists() else 0
            failures = 1 if after > before else failures + 1
            if failures >= TRIES or getattr(error, "code", None) in _NEVER:
                return str(error)
            log.info("%s: %s; trying again", part.stem, error)
            time.sleep(PAUSE * 2 ** (failures - 1))
        else:
            return ""


def _receive(address: str, part: Path, arrived: int) -> None:
    """Append what a server sends after the bytes that have arrived."""
    headers = {"User-Agent": "bs-bimamba"} | ({"Range": f"bytes={arrived}-"} if arrived else {})
    request = urllib.request.Request(address, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing after these bytes
            return
        raise
    with response:
        arrived = arrived if response.status == 206 else 0  # else it sends all of it
        size = response.headers["Content-Length"]
        total = arrived + int(size) if size else None
        bar = tqdm(
            total=total, initial=arrived, desc=part.stem, unit="B", unit_scale=True, disable=None
        )
        with bar, part.open("ab" if arrived else "wb") as file:
            while block := response.read(_BLOCK):
                arrived += file.write(block)
                bar.update(len(block))
    if total is not None and arrived < total:
        raise ConnectionError(f"the connection ended after {arrived} of {total} bytes")
