"""Result tables, claims, figures and the page of results."""
