"""The HTTP API, one blueprint a resource."""
