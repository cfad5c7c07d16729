"""The arms of the fold: what each event does to a state, grouped by what it is about."""
