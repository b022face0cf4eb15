"""The quick way through networks on processors."""
