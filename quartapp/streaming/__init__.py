"""Live status: from PostgreSQL's notifications to the bytes of one stream."""
