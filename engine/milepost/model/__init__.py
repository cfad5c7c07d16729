"""What a session is and how events change it. Pure: no disk, no clock, no settings."""
