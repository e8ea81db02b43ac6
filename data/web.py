"""One question to a web server, and what its answer means for a download."""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.error
import urllib.request as client
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

_BUSY = (408, 425, 429, 500, 502, 503, 504)  # a later request may be answered
_USER_AGENT = "bs-bimamba"


class AgainError(Exception):
    """It did not work this time. after: seconds that the server asks to wait."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class RefusedError(Exception):
    """It will not work at this address."""


class Answer:
    """What a server sends: all of a file (status 200), a part of it (206), or that there is none
    of what was asked for (416).

    Attributes:
        status: see above.
        begin: the byte of the file that it begins with; None where the server does not say.
        size: of the whole file in bytes, or None.
        etag, modified, kind: what the server says of the file, or "".
    """

    def __init__(self, response: Any, status: int) -> None:
        headers: Message = response.headers
        self._response, self.status = response, status
        self.etag = headers.get("ETag", "")
        self.modified = headers.get("Last-Modified", "")
        self.kind = headers.get("Content-Type", "")
        self.begin: int | None = 0
        self.size = _number(headers.get("Content-Length", ""))
        if status != 200:
            found = re.fullmatch(
                r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "")
            )
            self.begin, self.size = map(_number, found.groups("")) if found else (None, None)

    def read(self, most: int) -> bytes:
        """The next bytes, some of what was asked for at least; b"" at the end of the connection.

        Raises:
            AgainError: the connection broke, or nothing came in time.
        """
        try:
            return self._response.read1(most)
        except (OSError, http.client.HTTPException) as error:
            raise AgainError(f"the connection broke ({_reason(error)})") from None


@contextmanager
def ask(address: str, timeout: float, first: int = 0, validator: str = "") -> Iterator[Answer]:
    """A file's bytes from `first` on, redirections followed.

    Args:
        address: of http or https.
        timeout: seconds in which the server has to send something, each time.
        first: bytes that are there already.
        validator: of the file that they are of (an ETag or a date); if it is another one now, the
            server is to send it from its start.

    Raises:
        AgainError: there is no answer, or it says that there may be one later.
        RefusedError: there will be none.
    """
    if urlsplit(address).scheme not in ("http", "https"):
        raise RefusedError("not an address of http or https")
    # What is compressed on the way cannot be gone on from in the middle.
    headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
    if first:
        headers["Range"] = f"bytes={first}-"
        if validator:
            headers["If-Range"] = validator
    try:
        response = _opener().open(client.Request(address, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416 or not first:
                raise _judged(error) from None
            answer = Answer(error, 416)
        yield answer
        return
    except (OSError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError | str):
            raise RefusedError(_reason(error)) from None
        raise AgainError(f"no answer ({_reason(error)})") from None
    except ValueError as error:  # an address that is none, in a redirection
        raise RefusedError(str(error)) from None
    with response:
        if response.status not in ((200, 206) if first else (200,)):
            raise RefusedError(f"the server answers {response.status}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise RefusedError("the server sends it compressed once more")
        yield Answer(response, response.status)


def _opener() -> client.OpenerDirector:
    """What opens addresses of http and https, through a proxy if there is one, and no others."""
    opener = client.OpenerDirector()
    for handler in (
        client.ProxyHandler(),
        client.HTTPHandler(),
        client.HTTPSHandler(),
        client.HTTPRedirectHandler(),
        client.HTTPDefaultErrorHandler(),
        client.HTTPErrorProcessor(),
        client.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _judged(error: urllib.error.HTTPError) -> AgainError | RefusedError:
    reason = " ".join(f"the server answers {error.code} {error.reason}".split())
    if error.code in _BUSY:
        return AgainError(reason, _seconds(error.headers.get("Retry-After", "")))
    return RefusedError(reason)


def _seconds(retry_after: str) -> float:
    """What a header Retry-After asks for: a number of seconds, or a date."""
    if (number := _number(retry_after)) is not None:
        return float(number)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _reason(error: Exception) -> str:
    """A network error in few words."""
    cause = getattr(error, "reason", None) or error
    if isinstance(cause, TimeoutError):
        return "nothing came in time"
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
