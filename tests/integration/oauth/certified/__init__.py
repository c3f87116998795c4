"""Clients that others have certified against the running gateway, over TLS, with nothing relaxed."""
