"""Runs of many cells: axes, groups of one shape, blocks."""
