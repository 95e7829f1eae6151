"""Calls between processes of one machine: a frame there, a frame back, over a Unix socket."""
