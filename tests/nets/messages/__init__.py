"""What is refused, by family: each file holds `ERRORS`, what is done, the error, and its whole message."""
