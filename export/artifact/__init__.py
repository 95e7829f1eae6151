"""Write a version: SavedModel, `model.tflite`, card, golden examples; verify and publish it."""
