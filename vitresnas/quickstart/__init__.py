"""Own images in an afternoon: a plan that fits the time given, and the stages that carry it out."""
