"""Steps by capability, the story in `core`, and the clouds in `providers`."""
