"""dlib: detector, encoder, weights, face quality. Face processes alone load it."""
