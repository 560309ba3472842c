"""Transcription jobs: everything that works without HTTP."""
