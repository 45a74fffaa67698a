"""Who a workload is: SPIFFE IDs, X.509 SVIDs, the embedded CA and the store that keeps certificates fresh.

The only package that uses `cryptography`. It decides who a peer is, never what that peer may do.
"""
