"""What agent, engine and kernel keep of pods, policies, certificates and connections that came and went: nothing."""
