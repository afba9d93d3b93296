"""From base model and adapter to the folder that is served. Must not know how the adapter was trained."""
