"""What is collected: tests against torch where it is installed."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*_torch.py"]
