"""Calls between processes of one machine: a frame each way, over a Unix socket."""
