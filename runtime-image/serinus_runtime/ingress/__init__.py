"""What stands at the door: API keys, rate limits, priorities, deadlines. Pure parts, joined in `door`."""
