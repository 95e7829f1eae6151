"""dlib: detector, encoder, weights, picture quality. Imported in the face processes only."""
