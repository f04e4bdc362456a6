"""Run on each GPU host by on-premises.yaml: `cluster.machine start`, where nothing is installed.

What it imports it finds beside itself, and what Ray runs on the host later does not.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from cluster import machine

    sys.exit(machine.main(["start", *sys.argv[1:]]))
