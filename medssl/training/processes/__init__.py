"""Trainings over several processes: how they are started, and how they agree."""
