"""The review app: clinicians read, correct and sign predictions. It never loads torch."""
