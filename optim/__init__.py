"""Chainable links (to come)."""
