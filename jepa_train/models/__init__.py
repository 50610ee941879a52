"""The networks: encoder, projector, predictor."""
