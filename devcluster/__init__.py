"""A real single-node Kubernetes, WordPress, Weaviate and S3 on one machine, without Docker: for the demo and the tests.

Development only: it is never part of the wheel, and nothing in the wheel may import it.
"""
