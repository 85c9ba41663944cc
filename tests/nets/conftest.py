"""What is collected: tests against torch where it is installed."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("torch") else ["test_parity_torch.py"]
