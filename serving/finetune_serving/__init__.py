"""What serves a tuned model beside Django: the download that proves it whole, and the model server.

Knows the artifact's manifest and the three variables MODEL_URI, MODEL_MANIFEST_SHA256 and MODEL_ID; must not know
Kubernetes, Django or how the model was made.
"""
