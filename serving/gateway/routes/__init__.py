"""One module for each resource; each has a `blueprint(...)` that is given what its routes need."""
