"""Who may do what, and how much of it: API keys, rates, requests in flight, the audit log."""
