"""The known people: stores of galleries, search, encryption, export and import, advice on the tolerance."""
