"""The web face: HTTP API, event streams, accounts, pages and the command line."""
