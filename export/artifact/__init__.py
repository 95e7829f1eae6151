"""Write, verify and publish a version: SavedModel, `model.tflite`, card and golden examples."""
