"""One run of a suite: models are prepared, missing cells are computed, rows are written."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "cells": ["failed", "run_cell"],
        "preparation": ["job_of", "prepare"],
        "run": ["Outlook", "Run", "Unfinished", "command", "default_folder", "look_ahead", "usual_workers"],
    },
)
