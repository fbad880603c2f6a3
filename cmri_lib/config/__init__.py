"""The study's configuration: `params.yaml`, typed, and where things lie."""
