"""Settings: what the environment and the user's own file say, and where each was said."""
