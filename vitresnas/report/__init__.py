"""Results as one self-contained HTML page each: no network, no server, no torch."""

from vitresnas.report.render import render_report

__all__ = ["render_report"]
