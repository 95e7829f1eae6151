"""Measuring a running service, and finding the settings that suit a machine and a model."""
