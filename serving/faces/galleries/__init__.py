"""Known people: the gallery, its stores, matching, encryption, export and import."""
