"""The OAuth 2.1 authorization server, framework-free. Its front is `service.OAuthService`."""
