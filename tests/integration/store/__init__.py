"""Whole gateways on a control store in PostgreSQL."""
