"""What can be found out about an image beside restoring it."""
