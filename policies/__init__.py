"""Policy as code: facts in, decision out, no I/O."""
