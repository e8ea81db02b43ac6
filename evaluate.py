"""Score runs or files: `python evaluate.py RUN... --data ROOT --out DIR`, and more
(see `bsbimamba.commands.evaluate`)."""

from bsbimamba.commands.evaluate import main
from bsbimamba.data.workers import stop_by_signals

if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
