"""Between the engine's questions and the model's answers: what a connection asks, what it gets, what is recorded."""
