"""From sources to training examples. Knows documents and questions; must not know models or Kubernetes."""
