"""A reproducible comparison of generative models for synthetic cardiac MRI."""
