"""Taking models out of the store that nothing will serve again. Never more than plan.py decides."""
