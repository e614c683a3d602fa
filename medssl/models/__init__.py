"""What is done with trained models: load, ensemble, publish, import, calibrate and select cases."""
