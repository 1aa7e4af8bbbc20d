"""How often and how closely this project aligns synthetic pairs, and what is required of it."""
