"""Counts words, and signs the count."""
