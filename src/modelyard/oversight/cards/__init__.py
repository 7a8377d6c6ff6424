"""Model cards: what the records say of a model version, in one document, as JSON or Markdown; and the base of comparing versions.

Tables: none of its own. Events: none.
"""
