"""The mesh as values, and the two questions asked of it: route.plan() and policy.decide(). Pure, stdlib only."""
