"""The HTTP side: reads requests, calls the flows, writes answers. It never imports TensorFlow."""
