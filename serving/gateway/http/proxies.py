"""Read what trusted proxies say about a request: the client's address, and the service's as the client knows it."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PREFIX = re.compile(r"(?:/[\w.~%!$&'()*+,;=:@-]+)+", re.ASCII)  # segments of RFC 3986; none is empty: //host is no path


def behind_proxies(app: "WSGIApplication", proxies: int) -> ProxyFix:
    """Believe X-Forwarded-For, -Proto, -Host, -Port and -Prefix as far as `proxies` proxies in a row set them.

    The prefix becomes the application's root (SCRIPT_NAME): the proxy has taken it off the path.
    """
    return ProxyFix(_WithPrefix(app, proxies), x_for=proxies, x_proto=proxies, x_host=proxies, x_port=proxies)


class _WithPrefix:
    """Take over X-Forwarded-Prefix.

    Werkzeug's own reading wants an entry from each proxy, but proxies replace this header or leave it as it is; and it
    takes any text, which would then stand in links and redirects.
    """

    def __init__(self, app: "WSGIApplication", proxies: int) -> None:
        self._app, self._proxies = app, proxies

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        given = environ.get("HTTP_X_FORWARDED_PREFIX")
        if given:
            environ["SCRIPT_NAME"] = _prefix(given, self._proxies)
        return self._app(environ, start_response)


def _prefix(header: str, proxies: int) -> str:
    """Return the entry of the outermost trusted proxy, "" where it is no path."""
    prefix = header.split(",")[-proxies:][0].strip().rstrip("/")
    return prefix if PREFIX.fullmatch(prefix) else ""
