"""Access: API keys, rate limits, requests in flight, the audit log."""
