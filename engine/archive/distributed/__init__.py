"""Translate one archive on a Ray cluster: shares for actors, and one manifest in the calling process.

    actor on node 1   source → … → sink ┐
                                        ├ messages → driver: manifest, progress, summary, report
    actor on node 2   source → … → sink ┘

`shares` is the bookkeeping of who translates what, `cluster` connects to Ray, `worker` is what runs in an actor, and
`run` is the driver. Only `cluster` and `run` import Ray, which comes with the extra `ray`.
"""
