"""How long planning takes, and in how much memory, from 10 to 1,000,000 objects."""
