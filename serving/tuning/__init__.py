"""Load generation, and the search for settings that suit a machine and a model."""
