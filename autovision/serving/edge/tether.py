"""Run a command in this process's place that ends, however its parent ends: `tether.py PARENT_PID COMMAND...`.

Python's own library only, as it is run by its path: it must not take the seconds that importing a package takes.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # Survives the exec below; the kernel then sends it when the thread ends that started us.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before it could be asked for.
    if os.getppid() == parent:
        os.execv(command[0], command)


if __name__ == "__main__":
    main()
