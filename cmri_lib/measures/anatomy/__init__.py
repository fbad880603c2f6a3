"""Anatomy: does an image show the heart that its mask asks for, and is it a heart at all?"""
