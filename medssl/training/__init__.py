"""The one LightningModule, its schedules and its monitors."""
