"""Where the control process and the workers of one node meet: plain HTTP over a Unix socket."""
