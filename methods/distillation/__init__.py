"""Distillation: a student taught by a trained teacher."""
