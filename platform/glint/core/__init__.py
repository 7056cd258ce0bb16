"""The pure heart of glint: contracts and arithmetic, without torch, Ray, Azure or MLflow."""
