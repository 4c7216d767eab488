"""The kinds of problem: a module each, which describes, builds, solves and measures its problems.

The engine finds a track's module by its name; `harness.engine.tracks.Track` says what is in one.
"""
