"""Cleaning: from the HTML of a post to Markdown that is worth learning."""
