"""Lightning callbacks: progress, representation monitor, dense probe and plateau checkpoint."""
