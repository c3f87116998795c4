"""`make soak`: a hundred thousand completions, almost half of them given up, and nobody else notices."""
