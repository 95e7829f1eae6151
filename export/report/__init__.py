"""The HTML report of an export."""
