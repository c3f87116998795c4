"""The command `orgate`: one file a command group. It speaks to the admin API over HTTPS."""
