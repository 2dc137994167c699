"""What pseudonyms cost: a treated move against a plain one, and tokens against presidio-anonymizer."""
