"""Which versions are served: what is on disk, policies, configuration files, the repository."""
