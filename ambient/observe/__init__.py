"""What the mesh says about itself: access records, metrics, the admin socket, views and the tracer. Decides nothing."""
