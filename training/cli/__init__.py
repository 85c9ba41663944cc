"""Command line (to come)."""
