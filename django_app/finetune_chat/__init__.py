"""A reusable Django app that answers questions from a knowledge base with a small language model beside it.

Knows the model server only by its base URL; must not know Kubernetes, S3 or how the model was made.
"""
