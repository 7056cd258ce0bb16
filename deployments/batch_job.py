"""Drives one batch job that was submitted to glint: the entry point of a Ray job, for submitting one by hand.

ray job submit --address http://HEAD:8265 -- python /srv/glint/deployments/batch_job.py --job ID

The path is one of the head node, and so is the environment: GLINT_* that it lacks go into --runtime-env-json.
"""

from glint.cli.job import main

if __name__ == "__main__":
    main()
