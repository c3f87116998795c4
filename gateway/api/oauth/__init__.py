"""HTTP of the authorization server: endpoints for clients, two pages for people."""

from gateway.api.oauth.routes import oauth_routes

__all__ = ["oauth_routes"]
