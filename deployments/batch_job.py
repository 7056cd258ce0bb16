"""Drives one batch job that was submitted to glint: the entry point of a Ray job, for submitting one by hand.

ray job submit --address http://HEAD:8265 -- python deployments/batch_job.py --job ID
"""

from glint.cli.job import main

if __name__ == "__main__":
    main()
