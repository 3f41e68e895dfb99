"""What gets attacked: data sets, architectures, training and loading of models."""
