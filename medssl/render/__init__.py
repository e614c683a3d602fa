"""Pictures of volumes and reports, as HTML and PDF. Imports neither torch nor streamlit."""
