"""Sends audit logs to where organizations want them as they grow: at least once, in order, each by itself."""
