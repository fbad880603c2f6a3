"""Audits of a generator: does it give away whom it learnt from?"""
