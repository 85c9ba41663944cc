"""Losses to loops (to come)."""
