"""Append-only files of events, each of them one writer's."""
