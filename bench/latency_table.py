"""Measure what a space's networks cost on this device: see vitresnas/latency/.

python bench/latency_table.py --space digits
"""

import sys

from vitresnas.latency.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
