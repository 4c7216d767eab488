"""The compress track: a trained model in, the same model in a smaller stored format out."""
