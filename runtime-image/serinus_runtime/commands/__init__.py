"""What `serinus-runtime` can do beside serving: one file per command, each imported only when it is asked for."""
