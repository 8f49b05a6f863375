"""What runs inside pipelines: preprocess, train, evaluate.

Each module is one command, `python3 -m pipelines.NAME`: it reads `/pfs/<input>` and writes `/pfs/out`, as Pachyderm's
workers lay them out. Nothing here imports the rest of Howdah, so that the same commands run in any image that has
these files.
"""
