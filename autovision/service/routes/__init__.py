"""The routes of /api/v1, by subject. Each reads a record or acts through what the command line acts through."""
