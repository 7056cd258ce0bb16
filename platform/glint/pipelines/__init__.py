"""Ray Data, Ray Train and what is built on them: the flow, stage by stage."""
