"""The face service: a server with a pool of dlib processes, and its client."""
