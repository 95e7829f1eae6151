"""Sightline's serving side: the contract, the backend, the gateway and the embedded model server."""
