"""What carrying bytes costs: a pair of our engines against a pair of Envoys, by CPU time, in one interleaved run."""
