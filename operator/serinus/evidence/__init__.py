"""From metrics to verdicts: PromQL, counters that survive restarts, sequential tests. No Kubernetes."""
