"""Stage 4: whether this member may have this model do this."""
