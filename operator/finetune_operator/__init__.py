"""The controller: watches FineTuneRuns, starts their Jobs, and rolls the tuned model out."""
