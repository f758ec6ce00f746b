"""The release state machine: revisions, steps, gates, promotion, rollback. No I/O and no clock of its own."""
