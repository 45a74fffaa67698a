"""Where a World comes from: objects as users write them, translated to the model's nouns."""
