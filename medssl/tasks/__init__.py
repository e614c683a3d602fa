"""What is learnt from labels, one task a file; a file's name is the task's name."""
