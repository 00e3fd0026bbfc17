"""The command line program `hippo`."""
