"""The Verde node: client, provider and referee."""

import os

# A node shares its machine with other processes: worker threads that wait shall sleep, not spin. OpenMP reads this
# once, when repops loads it; who runs a provider on cores of its own can set ACTIVE.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
