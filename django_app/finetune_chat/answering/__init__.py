"""From a question to an answer with links: search, gate, queue, model, filter. Must not know HTTP requests or pages."""
