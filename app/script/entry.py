"""What Streamlit runs for every page."""

from app.main import main

main()
