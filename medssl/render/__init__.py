"""Pictures of volumes: planes, windows, overlays. No torch, no streamlit."""
