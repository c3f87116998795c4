"""The server. Data plane: the path a completion takes. Control plane: OAuth and the admin API."""
