"""Enhance recordings: `python enhance.py INPUT... -o DIR` (see `bsbimamba.commands.enhance`)."""

from bsbimamba.commands.enhance import main
from bsbimamba.data.workers import stop_by_signals

if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
