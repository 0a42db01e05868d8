"""The coordinator: runs, their history and results, files, teachers. SQL is the truth; no model is ever loaded here."""
