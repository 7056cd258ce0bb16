"""Drives one batch job that was submitted to glint: the entry point of a Ray job, for submitting one by hand.

ray job submit --address http://HEAD:8265 --submission-id DRIVER -- python /srv/glint/deployments/batch_job.py --job ID

DRIVER is what GET /v1/batch/jobs/ID calls the job's driver: a supervisor that lives starts a second one beside a driver
of any other name. The path is one of the head node, and so is the environment: GLINT_* that it lacks go into
--runtime-env-json, GLINT_RAY_ADDRESS=auto among them, without which the driver starts a Ray of its own.
"""

from glint.cli.job import main

if __name__ == "__main__":
    main()
