"""What an upgrade, a crash or an outage costs the connections of two nodes: the harness of bench and test."""
