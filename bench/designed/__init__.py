"""The parts of bench/against_designed.py: a search's network beside networks designed by hand."""
