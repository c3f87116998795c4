"""Races for one refresh token: `make races`."""
