"""The data plane's HTTP: raw ASGI handlers made from one route table."""
