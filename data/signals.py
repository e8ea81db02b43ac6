"""The signals by which a user, a scheduler or a closed terminal asks a process to stop."""

from __future__ import annotations

import signal

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")  # some systems lack the last two
STOP_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
