"""Side by side on one cluster: how many users a bad version reaches under Serinus and under Flagger."""
