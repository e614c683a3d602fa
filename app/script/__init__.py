"""A folder of its own for the script: Streamlit takes a folder `pages` beside its script for scripts of its own."""
