"""Fit a network, find its hyperparameters, calibrate and evaluate it."""
