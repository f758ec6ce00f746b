"""Messages about releases on their way to people: the text, the address, and the one call."""
