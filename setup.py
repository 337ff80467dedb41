"""Build script; pyproject.toml declares the package."""

from setuptools import setup

setup()
