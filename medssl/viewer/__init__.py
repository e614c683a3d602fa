"""The browser component that shows a volume in three linked planes."""
