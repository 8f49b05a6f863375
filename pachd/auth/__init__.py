"""Access control: who a caller is, and what they may do to the cluster, a project or a repo. Off until it is activated.

Only hashes of tokens are kept. Nothing here knows of a wire.
"""

from pachd.auth.schema import SCHEMA

__all__ = ["SCHEMA"]
