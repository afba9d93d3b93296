"""The proof that tuning helped: answers of base and new model, metrics, gates, report. Must not know the operator."""
