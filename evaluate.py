"""Score trained networks, or any system's files (see `bsbimamba.commands.evaluate`)."""

from bsbimamba.commands.evaluate import main
from bsbimamba.data.workers import stop_by_signals

if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
