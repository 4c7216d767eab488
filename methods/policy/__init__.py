"""Reinforcement learning of policies over tokens."""
