"""Decide which versions are served: folders on disk, policies, configuration files, the repository."""
