"""What each command of the command line does; one module with a ``run`` for each."""
