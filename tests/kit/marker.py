"""A word that tests plant wherever somebody's code passes: prompts, answers, errors of a model.

After the whole suite not one file that any test left may hold it (`tests/conftest.py`).
"""

MARKER = "xyzzy_marker_7c1e04"
