"""The signals by which a user, a scheduler or a closed terminal asks a process to stop."""

from __future__ import annotations

import signal

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")  # some systems lack the last two
STOP_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
# Those that nobody sends who wants a process to save and go on later.
INTERRUPTIONS = tuple(each for each in STOP_SIGNALS if each.name != "SIGUSR1")
