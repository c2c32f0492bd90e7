"""The runtimes that come with vitresnas, one `RUNTIME` per file: see latency/runtime.py."""
