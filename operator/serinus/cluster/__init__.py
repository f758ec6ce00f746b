"""The only place that calls the API server: store of watched objects, server-side apply, lease, events."""
