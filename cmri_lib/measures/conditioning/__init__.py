"""Conditioning: does a sample show the vendor, phase or disease it was conditioned on?"""
