"""Trained and pretrained Keras models to SavedModels that say what they are."""
