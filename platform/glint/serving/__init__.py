"""HTTP: FastAPI applications, and the Ray Serve deployments that host them."""
