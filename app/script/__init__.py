"""Holds the entry script alone: Streamlit would treat a folder `pages` next to it as a list of scripts."""
