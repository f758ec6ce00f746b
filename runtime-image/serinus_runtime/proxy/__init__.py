"""An engine in a container beside this one: requests are passed on, with the front's limits, metrics and log."""
