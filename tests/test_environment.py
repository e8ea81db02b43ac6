"""Variables of the environment, changed for a while."""

from __future__ import annotations

import os

import pytest

from data.environment import variable

NAME = "BSBIMAMBA_TEST"


@pytest.mark.parametrize("before", [None, "reference"])
@pytest.mark.parametrize("within", [None, "chunked"])
@pytest.mark.parametrize("error", [False, True])
def test_it_is_as_it_was_before(
    before: str | None, within: str | None, error: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(NAME, raising=False)
    if before:
        monkeypatch.setenv(NAME, before)
    try:
        with variable(NAME, within):
            assert os.environ.get(NAME) == within
            if error:
                raise OSError
    except OSError:
        assert error
    assert os.environ.get(NAME) == before
