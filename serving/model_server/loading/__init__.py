"""Load a version, warm it up, batch its calls."""
