"""Imported by the server that forks the workers, as its first act, and by nothing else.

The server, and so all workers from their first moment, are then in a session of their own. What is
sent to the process group of the parent, as Ctrl-C is, does not reach one that is still starting.
What came before, while `data.workers` had these signals wait, is dropped.
"""

import os
import signal

from data.signals import STOP_SIGNALS

if hasattr(os, "setsid"):
    os.setsid()
    waiting = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, waiting)
    for number, handler in waiting.items():
        signal.signal(number, handler)
