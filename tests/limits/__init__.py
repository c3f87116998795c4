"""`make limits`: a million requests from eight processes at twice their limits, and a store that dies."""
