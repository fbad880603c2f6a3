"""The book of the study: its executed notebooks, systems, claims and guides as pages to browse without a network."""
