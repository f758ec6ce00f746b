"""Monte Carlo of verdicts: how often a good candidate is rolled back, and how soon a bad one."""
