"""gunicorn's configuration, worker class and WSGI application."""
