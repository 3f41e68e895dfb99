"""What a run says: tables, figures, and one page."""
