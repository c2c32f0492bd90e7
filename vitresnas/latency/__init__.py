"""What networks cost on this device: a table of measured pieces, read without torch.

Reading and pricing: `load_tables`, `select_table`, `LatencyTable`. Measuring imports torch and has
its own modules: `latency.build.build_table`, `latency.measure.time_interleaved`.
"""

from vitresnas.latency.condition import Condition
from vitresnas.latency.statistics import Measurement, interval_95, kendall_tau
from vitresnas.latency.table import LatencyTable, load_tables, save_tables, select_table
from vitresnas.latency.timing import Timing

__all__ = [
    "Condition",
    "LatencyTable",
    "Measurement",
    "Timing",
    "interval_95",
    "kendall_tau",
    "load_tables",
    "save_tables",
    "select_table",
]
