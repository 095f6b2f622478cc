"""A process that generates candidates until it ends or is killed."""

import sys

from ranker.offline import generate

if __name__ == "__main__":
    generate(sys.argv[1], sys.argv[2], k=12, workers=2, users_per_shard=4, progress=False)
