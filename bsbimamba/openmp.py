"""Let OpenMP's threads sleep while they wait; commands that compute import this before torch.

By default they spin: they occupy cores that other processes, or the threads that they wait for,
could use, and beside other busy processes a step takes many times as long. OpenMP reads the
variable once, when it is loaded. Child processes inherit it. A value that the user has set stays.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
