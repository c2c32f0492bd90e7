"""A model that was found, timed and scored again: here, now, and into its card."""
