"""Makes docs/reference/ from the code. `python -m docs.build` writes, `--check` compares."""
