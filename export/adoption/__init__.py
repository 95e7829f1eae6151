"""Adopt models that others made: load the file, know its input, its scaling and its output, and wrap it."""
