"""Scoring a folder, a list, a table or an archive of pictures: exactly one row for each, whatever happens."""
