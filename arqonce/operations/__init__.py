"""What operators' tools ask a running process: metrics, probes, and figures for scaling, over HTTP."""
