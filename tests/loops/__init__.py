"""The plug-ins of examples/plugins in the frameworks that they are for; run by `make test-loops`."""
