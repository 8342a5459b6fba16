"""Plan my cluster: from measured step times to a ranked answer with intervals."""
