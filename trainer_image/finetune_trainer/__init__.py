"""The work: dataset, train, package, evaluate. In a Job or on a laptop; must not know Kubernetes."""
