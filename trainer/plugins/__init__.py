"""Franken's algorithms inside other trainers."""
