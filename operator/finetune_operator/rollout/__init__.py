"""The new model going live, and back again when it does not work. Pure; see states.py for the machine."""
