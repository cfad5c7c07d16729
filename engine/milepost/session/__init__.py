"""The living session: model, journal and snapshots brought together."""
