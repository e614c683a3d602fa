"""Pools of volumes from several stores."""
