"""The words that operator, stages, serving and chat share: spec, status, artifacts, stage protocol, prompt.

Knows the standard library and pydantic; must not know Kubernetes clients, torch, boto3 or Django.
"""

VERSION = "0.1.0"
"""Version of the contract and of the trainer; part of the run key, because other code makes another model."""
