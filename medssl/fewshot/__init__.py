"""The proof of what a pretraining is worth: arms, labels and seeds crossed, trained alike and tested alike."""
