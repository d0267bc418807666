"""A TCP server that imitates exchanges: the package behind the command `testgen`."""
