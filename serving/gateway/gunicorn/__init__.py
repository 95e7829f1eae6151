"""How gunicorn starts the gateway: its configuration, the worker class, the WSGI application."""
