"""What tests share: the oracle, exchanges under control, and the running system."""
