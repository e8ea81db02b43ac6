"""Let OpenMP's threads sleep while they wait; commands that compute import this before torch.

By default they spin. Beside other processes on the same cores they then hold a core that the thread
they wait for needs, and a step takes many times as long. OpenMP reads the variable once, when it
is loaded; child processes inherit it. A value that the user has set stays.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
