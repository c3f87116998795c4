"""Stage 1: who is calling. Access tokens (RFC 9068) verified locally."""
