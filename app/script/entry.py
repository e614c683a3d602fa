"""The script that Streamlit runs for every page."""

from app.main import main

main()
