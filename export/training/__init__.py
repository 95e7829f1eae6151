"""Fit a network, search its hyperparameters, calibrate and evaluate it."""
