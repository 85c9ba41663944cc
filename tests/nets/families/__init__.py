"""Networks by family: each file holds `CASES`, the cases that it adds to the registry."""
